"""`make serve`: what it composes, what it refuses, and that nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.local.environment import INGRESS_PORTS, LOOPBACK, LocalPorts, is_free, local_environment, prepare_directory
from cluster.local.launch import is_here, main
from cluster.local.process_tree import is_running
from cluster.local.serve_config_loader import ConfigFileError, example_model, load, resolve
from router.config.router import RouterConfig

REPOSITORY = Path(__file__).parents[2]
SHORT = Path("/tmp/manta-test")
APPLICATION = {"name": "manta", "import_path": "cluster.app:build"}


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        yield server.getsockname()[1]


class TestEnvironment:
    def test_everything_it_writes_lies_in_its_directory(self) -> None:
        environment = local_environment(SHORT, inherit={})

        paths = {name: value for name, value in environment.items() if value.startswith("/")}
        assert {"HOME", "TMPDIR", "RAY_TMPDIR", "RAY_SERVE_HAPROXY_SOCKET_PATH"} <= paths.keys()
        assert all(value.startswith(f"{SHORT}/") for value in paths.values())

    def test_two_services_share_neither_token_nor_port(self) -> None:
        one, other = (local_environment(SHORT, inherit={}) for _ in range(2))

        assert one["RAY_AUTH_TOKEN"] != other["RAY_AUTH_TOKEN"]
        assert one["RAY_AUTH_MODE"] == "token"

    def test_ray_settings_of_the_caller_do_not_leak_in(self) -> None:
        environment = local_environment(SHORT, inherit={"RAY_ADDRESS": "10.0.0.1:6379", "PATH": "/bin"})

        assert "RAY_ADDRESS" not in environment
        assert environment["PATH"] == "/bin"

    def test_a_directory_too_long_for_unix_sockets_is_refused(self) -> None:
        with pytest.raises(ValueError, match="too long"):
            local_environment(Path("/tmp") / ("x" * 60), inherit={})

    def test_a_reload_of_haproxy_leaves_streams_the_time_of_a_request(self) -> None:
        root = Path(__file__).resolve().parents[2]
        lines = (root / "k8s" / "base" / "environment.env").read_text().splitlines()
        clusters = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        for environment in (clusters, local_environment(Path("/tmp/manta"), inherit={})):
            hard_stop_s = int(environment["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"])
            assert hard_stop_s > RouterConfig.model_fields["request_timeout_s"].default

    def test_the_ports_are_distinct_and_free(self) -> None:
        ports = LocalPorts.free()

        singles = [ports.dashboard, ports.dashboard_agent, ports.metrics]
        singles += [ports.haproxy_metrics, ports.haproxy_stats, ports.fallback_http, ports.fallback_grpc]
        blocks = [*range(ports.ingress_http, ports.ingress_http + INGRESS_PORTS)]
        blocks += range(ports.ingress_grpc, ports.ingress_grpc + INGRESS_PORTS)
        assert len({*singles, *blocks}) == len(singles) + 2 * INGRESS_PORTS
        assert all(is_free(port) for port in singles)

    def test_a_taken_dashboard_port_is_replaced(self, taken_port: int) -> None:
        assert LocalPorts.free(dashboard=taken_port).dashboard != taken_port

    def test_the_port_of_the_api_is_none_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing listens there yet, so that it looks free."""
        monkeypatch.setattr("cluster.local.environment.secrets.randbelow", lambda below: 0)
        ports = LocalPorts.free()
        others = LocalPorts.free(api=ports.fallback_http)
        assert others.ingress_http != ports.ingress_http

    def test_services_share_the_kernels_of_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "user"))
        prepare_directory(tmp_path / "service")

        (tmp_path / "service" / "home" / ".cache" / "manta" / "kernels").mkdir()

        assert (tmp_path / "user" / ".cache" / "manta" / "kernels").is_dir()

    def test_a_service_needs_no_home_of_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "file"))

        prepare_directory(tmp_path / "service")

        assert (tmp_path / "service" / "home").is_dir()

    def test_haproxy_runs_with_a_mended_config(self, tmp_path: Path) -> None:
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
            "    option splice-request\n    option splice-response\n"
            "frontend prometheus\n    bind :9101\n    http-request deny\n"
            "frontend http_frontend\n    bind 127.0.0.1:8000\n    http-request deny\n"
        )
        prepare_directory(tmp_path)

        # The real binary, which reads the config, finds it valid and ends.
        subprocess.run([tmp_path / "haproxy" / "run", "-c", "-f", config], check=True, capture_output=True)

        mended = config.read_text()
        assert "bind 127.0.0.1:9101" in mended
        assert "bind 127.0.0.1:8000" in mended
        assert "splice-request" not in mended
        for header in ("x-request-timeout-seconds", "x-request-disconnect-disabled"):
            assert f"http-request del-header {header}" in mended.partition("frontend http_frontend")[2]


class TestConfig:
    def test_it_listens_on_loopback_unless_told_otherwise(self) -> None:
        config = resolve({"applications": [APPLICATION]}, None)

        assert config["http_options"] == {"host": LOOPBACK, "port": 8000}
        assert config["proxy_location"] == "HeadOnly"

    def test_the_given_port_wins(self) -> None:
        config = resolve({"applications": [APPLICATION], "http_options": {"port": 8000, "root_path": "/x"}}, 9000)

        assert config["http_options"] == {"host": LOOPBACK, "port": 9000, "root_path": "/x"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("applications: []", "applications"),
            ("- 1", "applications"),
            ("{applications: [{}], aplications: 1}", "unknown keys: aplications"),
            ("{applications: [{}], http_options: {port: 70000}}", "not a port"),
            ("{applications: [{}], http_options: {request_timeout_s: 60}}", "router.request_timeout_s"),
            ("a: [", "not YAML"),
        ],
    )
    def test_a_wrong_file_is_refused_with_its_name_and_reason(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "bad.yaml"
        path.write_text(content)

        with pytest.raises(ConfigFileError, match=message) as caught:
            load(path, None)

        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("arguments", "model"),
        [
            ({"tiers": [{"name": "small"}, {"name": "large"}], "router": {"auto": None}}, "small"),
            ({"tiers": {"small": {}, "large": {}}, "router": {"auto": None}}, "small"),
            ({"tiers": [{"name": "small"}], "router": {"auto": {"tolerance": 0.1}}}, "auto"),
            ({"tiers": [{"name": "small"}], "router": {}}, "auto"),
        ],
    )
    def test_the_example_request_asks_for_a_model_that_is_served(self, arguments: dict[str, Any], model: str) -> None:
        other = {"name": "other", "import_path": "other:app"}

        assert example_model(resolve({"applications": [other, APPLICATION | {"args": arguments}]}, None)) == model

    def test_the_shipped_config_is_one(self) -> None:
        assert load(REPOSITORY / "deployments" / "dev.yaml", None)["http_options"]["host"] == LOOPBACK


class TestRefusals:
    """What is wrong is said before anything is started. In a child: the launcher sets signal handlers."""

    def test_a_port_in_use(self, taken_port: int) -> None:
        result = launch_and_wait("--port", str(taken_port))

        assert result.returncode == 1
        assert f"port {taken_port} is in use" in result.stderr

    def test_a_missing_file(self) -> None:
        result = launch_and_wait("--config", "no/such.yaml")

        assert result.returncode == 1
        assert "no/such.yaml: No such file" in result.stderr

    def test_no_free_ports(self) -> None:
        script = (
            "import sys; from cluster.local import environment, launch; environment.is_free = lambda port: False; "
            "launch.is_free = lambda port: True; sys.exit(launch.main([]))"
        )
        result = subprocess.run(
            [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )

        assert result.returncode == 1
        assert result.stderr.startswith("Manta: there are no 136 free ports in a row from 20000 to 31999")
        assert "Traceback" not in result.stderr

    def test_help_teaches(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])

        assert "Example: python -m cluster.local.launch" in capsys.readouterr().out


def test_descendants_are_stopped_even_if_they_ignore_sigterm() -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    script = (
        "import subprocess, sys\n"
        "from cluster.local.process_tree import stop_descendants\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "sys.exit(len(stop_descendants(grace_s=0.2, deadline_s=5)))\n"
    )

    assert subprocess.run([sys.executable, "-c", script], timeout=20, cwd=REPOSITORY).returncode == 0


@pytest.mark.slow
class TestService:
    """Real Ray, a small application, and what is left afterwards."""

    def test_it_becomes_ready_and_leaves_nothing(self, tmp_path: Path) -> None:
        port = LocalPorts.free().fallback_http
        launcher = Launcher(write_config(tmp_path, "{}"), port)

        try:
            output = launcher.wait_for("Ctrl-C stops everything", 90)
            with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/healthz", timeout=10) as response:
                assert response.read() == b"hello"
            family = launcher.family()
            ports = listening_ports(family) | {port}
            assert len(ports) > 10  # a whole Ray cluster's
            launcher.process.send_signal(signal.SIGINT)
            code = launcher.process.wait(45)
        finally:
            launcher.end()

        assert code == 0, output
        assert not [process for process in family if is_running(process)]
        # Not `is_free`: another process may by now have an outgoing connection from a port that was let go.
        assert not ports & all_listening_ports()
        assert not launcher.directory(output).exists()

    def test_a_broken_application_is_reported_and_leaves_nothing(self, tmp_path: Path) -> None:
        port = LocalPorts.free().fallback_http
        launcher = Launcher(write_config(tmp_path, "{broken: true}"), port)

        try:
            code = launcher.process.wait(90)
        finally:
            launcher.end()

        assert code == 1
        assert "this application is broken on purpose" in launcher.output()
        assert is_free(port)


def launch_and_wait(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.local.launch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=REPOSITORY)


def write_config(folder: Path, args: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(f"applications: [{{name: small, route_prefix: /, import_path: 'smallapp:build', args: {args}}}]\n")
    return path


def listening_ports(processes: list[psutil.Process]) -> set[int]:
    """Where they listen; some of Ray's helpers end while we look."""
    ports: set[int] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
            ports |= {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return ports


def all_listening_ports() -> set[int]:
    """Ports where anything on this machine listens."""
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return {c.laddr.port for c in listening if c.laddr}


class Launcher:
    """The launcher as a child process, its output read in the background."""

    def __init__(self, config: Path, port: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cluster.local.launch", "--config", str(config), "--port", str(port)],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def output(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while text not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)
        return self.output()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @staticmethod
    def directory(output: str) -> Path:
        (line,) = (line for line in output.splitlines() if line.strip().startswith("logs"))
        return Path(*Path(line.split()[1]).parts[:3])

    def end(self) -> None:
        """Whatever happened in the test: the launcher is told to stop, and given the time to do so."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)


HEAD = [sys.executable, "-m", "cluster.local.ray_head_process"]


def head_process(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*HEAD, *command], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


def leaving(seconds: str) -> tuple[str, ...]:
    """A command that ends at once and leaves two processes, whose ids it prints: one sleeps for ``seconds``."""
    python = sys.executable
    sleep = f'{python} -c "import time; time.sleep({{}})"'
    return "sh", "-c", f"{sleep.format(60)} & echo $!; {sleep.format(seconds)} & echo $!"


def ids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(2)]


class TestRayHeadProcess:
    def test_it_ends_with_an_error_when_one_that_was_left_ends_and_ends_the_others(self) -> None:
        with head_process(*leaving("0.5")) as process:
            left = ids(process)
            code = process.wait(20)
            assert process.stdout is not None
            assert "has ended" in process.stdout.read()

        assert code == 1
        assert not [pid for pid in left if psutil.pid_exists(pid)]

    def test_sigterm_ends_all_that_was_left(self) -> None:
        with head_process(*leaving("60")) as process:
            left = ids(process)
            process.terminate()
            code = process.wait(20)

        assert code == 0
        assert not [pid for pid in left if psutil.pid_exists(pid)]

    def test_a_command_that_fails_gives_its_exit_code(self) -> None:
        with head_process("sh", "-c", "exit 7") as process:
            assert process.wait(20) == 7


def test_an_optional_model_that_is_not_here_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()

    assert is_here(str(tmp_path / "model.gguf"))
    assert not is_here(str(tmp_path / "other.gguf"))
    assert not is_here("package:no-such-package/model.gguf")
