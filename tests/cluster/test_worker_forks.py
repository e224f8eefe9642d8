"""Workers of a local service are forked from one process, and their main threads wake up less often."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from cluster.local import environment, worker_start
from cluster.local.environment import prepare_directory
from cluster.local.ray_start import DASHBOARD_MODULES, with_modules
from cluster.local.worker_forks import answer, import_all
from cluster.local.worker_start import forked, order_of, service_directory

REPOSITORY = Path(__file__).parents[2]
START = REPOSITORY / "cluster" / "local" / "worker_start.py"
CONTEXT = "--serialized-runtime-env-context"
WORKER = ["/ray/default_worker.py", "--node-id=7", "--temp-dir=/tmp/manta-x/ray"]

SCRIPT = """
import json, os, sys
told = {
    "name": __name__, "arguments": sys.argv, "mark": os.environ.get("MARK"), "directory": os.getcwd(),
    "parent": os.getppid(), "torch": "torch" in sys.modules, "preload": os.environ.get("LD_PRELOAD"),
    "own_group": os.getpgid(0) == os.getpid(),
}
if told["torch"]:
    import ray
    told["drawn"] = ray.ObjectRef.from_random().hex()
print(json.dumps(told), flush=True)
"""

WAIT = """
import ctypes, os, struct, threading, time
libc = ctypes.CDLL(None)

def wait(milliseconds):
    timer = libc.timerfd_create(1, 0)
    libc.timerfd_settime(timer, 0, ctypes.c_char_p(struct.pack("4q", 0, 0, 0, milliseconds * 1000000)), None)
    began = time.monotonic()
    os.read(timer, 8)
    return time.monotonic() - began

found = [wait(5), wait(40)]
thread = threading.Thread(target=lambda: found.append(wait(5)))
thread.start()
thread.join()
print(*found)
"""


class TestOrders:
    def test_a_worker_of_python_is_forked_with_the_variables_of_its_process(self) -> None:
        context = json.dumps({"env_vars": {}, "py_executable": sys.executable, "command_prefix": []})

        order = order_of(["-s", *WORKER, f"{CONTEXT}={context}", "--language=PYTHON"], {"A": "0", "B": "2"})

        assert order == {"arguments": WORKER, "environment": {"A": "0", "B": "2"}, "directory": os.getcwd()}

    @pytest.mark.parametrize(
        ("context", "language"),
        [
            ({"py_executable": "/usr/bin/other"}, "PYTHON"),
            ({"command_prefix": ["nice"]}, "PYTHON"),
            ({"override_worker_entrypoint": "/other.py"}, "PYTHON"),
            ({"env_vars": {"OMP_NUM_THREADS": "4"}}, "PYTHON"),  # the fork has imported torch already
            ({}, "JAVA"),
        ],
    )
    def test_others_are_left_to_ray(self, context: dict[str, Any], language: str) -> None:
        assert order_of([*WORKER, f"{CONTEXT}={json.dumps(context)}", f"--language={language}"], {}) is None

    def test_the_directory_is_that_of_the_service(self) -> None:
        assert service_directory(WORKER) == "/tmp/manta-x"
        assert service_directory([]) is None


class Service:
    """A directory of a local service, and a process that stands for its raylet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "worker.py"
        self.script.write_text(SCRIPT, encoding="utf-8")
        self.raylet = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])

    def start_worker(self, mark: str, variables: dict[str, str] | None = None) -> dict[str, Any]:
        """Returns what a new worker tells. ``variables`` are those of its runtime environment."""
        context = json.dumps({"env_vars": variables or {}})
        arguments = [str(self.script), f"--temp-dir={self.directory / 'ray'}", f"{CONTEXT}={context}"]
        output = self.directory / f"{mark}.txt"
        with output.open("w", encoding="utf-8") as file:
            subprocess.run(
                [sys.executable, str(START), *arguments, "--language=PYTHON"],
                env={**os.environ, "RAY_RAYLET_PID": str(self.raylet.pid), "OMP_NUM_THREADS": "1", "MARK": mark},
                cwd=REPOSITORY,
                stdout=file,
                check=True,
                timeout=120,
            )
        return self._told(output)

    def leave_early(self, sent: bytes) -> None:
        """Sends the fork server bytes, with the descriptors of an order, and closes the connection at once."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.directory / "workers.sock"))
            if sent:
                socket.send_fds(client, [sent], [0, 1, 2])

    def end(self) -> None:
        self.raylet.kill()
        self.raylet.wait()

    @staticmethod
    def _told(output: Path) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while not output.read_text().endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        told: dict[str, Any] = json.loads(output.read_text().splitlines()[-1])
        return told


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("s")
    prepare_directory(directory)
    running = Service(directory)
    yield running
    running.end()


def test_workers_are_forks_of_one_process_that_has_imported_what_they_need(service: Service) -> None:
    one, other = service.start_worker("a"), service.start_worker("b")

    assert one["parent"] == other["parent"]
    assert (one["mark"], other["mark"]) == ("a", "b")
    assert one["name"] == "__main__"
    assert one["arguments"] == [str(service.script), f"--temp-dir={service.directory / 'ray'}"]
    assert one["directory"] == str(REPOSITORY)
    assert one["torch"]
    assert one["own_group"]
    assert os.getpgid(one["parent"]) == one["parent"]
    assert one["preload"] is None
    server = psutil.Process(one["parent"])
    assert server.num_threads() == 1
    assert "slow_timers.so" in Path(f"/proc/{server.pid}/maps").read_text()


def test_no_two_workers_draw_the_same_ids_for_their_objects(service: Service) -> None:
    drawn = [service.start_worker(mark)["drawn"] for mark in ("l", "m", "n")]

    assert len(set(drawn)) == 3


def test_when_the_process_has_died_the_next_worker_starts_another(service: Service) -> None:
    first = service.start_worker("c")
    psutil.Process(first["parent"]).kill()

    second = service.start_worker("d")

    assert second["mark"] == "d"
    assert second["parent"] != first["parent"]


def test_a_worker_with_variables_of_its_own_is_started_by_ray(service: Service) -> None:
    worker = service.start_worker("g", {"MARK": "h"})

    assert worker["mark"] == "h"
    assert not worker["torch"]


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["before its order", "within its order", "after its order"])
def test_a_client_that_leaves_costs_the_others_nothing(service: Service, part: float) -> None:
    before = service.start_worker("i")
    script = {"arguments": [str(service.script)], "environment": {}, "directory": str(REPOSITORY)}
    order = json.dumps(script).encode() + b"\n"
    server = psutil.Process(before["parent"])
    opened = server.num_fds()

    for _ in range(10):
        service.leave_early(order[: int(len(order) * part)])
    after = service.start_worker("j")

    assert after["parent"] == before["parent"]
    assert server.num_fds() < opened + 5  # of 30 that were sent; the last connection may be open still


def test_the_process_ends_with_the_raylet(service: Service) -> None:
    server = psutil.Process(service.start_worker("e")["parent"])

    service.end()

    server.wait(10)


def test_a_fork_that_fails_leaves_the_worker_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(os, "fork", fork)
    client, server = socket.socketpair()
    order = {"arguments": ["x"], "environment": {}, "directory": "/"}
    opened = psutil.Process().num_fds()

    with client:
        with server:
            socket.send_fds(client, [json.dumps(order).encode() + b"\n"], [0, 1, 2])
            assert answer(server) is None
            assert psutil.Process().num_fds() == opened
        assert client.recv(32) == b""


def test_an_answer_that_no_client_waits_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = socket.socketpair()
    order = {"arguments": ["x"], "environment": {}, "directory": "/"}
    socket.send_fds(client, [json.dumps(order).encode() + b"\n"], [0, 1, 2])

    def fork() -> int:
        client.close()
        return 7

    monkeypatch.setattr(os, "fork", fork)

    with server:
        assert answer(server) is None


def test_a_module_that_cannot_be_imported_is_left_to_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "module_that_fails.py").write_text("raise RuntimeError('no driver')", encoding="utf-8")
    (tmp_path / "module_after_it.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    import_all(["module_that_fails", "module_after_it"])

    assert "module_that_fails is left to workers: RuntimeError: no driver" in capsys.readouterr().out
    assert "module_after_it" in sys.modules


def test_without_a_raylet_no_process_listens(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()

    done = subprocess.run(
        [sys.executable, "-m", "cluster.local.worker_forks", str(tmp_path / "workers.sock")],
        env={**os.environ, "RAY_RAYLET_PID": str(ended.pid), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "ProcessLookupError" in done.stderr
    assert not list(tmp_path.iterdir())


class TestFailures:
    """A fork server that does not start or answer costs one worker its time, and no other."""

    ORDER: ClassVar[dict[str, object]] = {"arguments": ["x"], "environment": {}, "directory": "/"}

    def test_one_that_starts_too_slowly_is_ended_and_not_started_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker_start, "START_S", 0.2)
        monkeypatch.setenv("RAY_RAYLET_PID", str(os.getpid()))

        with pytest.raises(TimeoutError, match="does not listen"):
            forked(self.ORDER, str(tmp_path))

        commands = [child.cmdline() for child in psutil.Process().children()]
        assert not [command for command in commands if str(tmp_path / "workers.sock") in command]
        with pytest.raises(ConnectionError, match="failed before"):
            forked(self.ORDER, str(tmp_path))

    def test_one_that_ends_while_it_starts_is_not_started_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_RAYLET_PID", "no number")

        for reason in ("ends with status 1", "failed before"):
            with pytest.raises(ConnectionError, match=reason):
                forked(self.ORDER, str(tmp_path))

    def test_one_that_hangs_is_not_asked_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker_start, "ANSWER_S", 0.2)
        with socket.socket(socket.AF_UNIX) as hanging:
            hanging.bind(str(tmp_path / "workers.sock"))
            hanging.listen()

            with pytest.raises(TimeoutError):
                forked(self.ORDER, str(tmp_path))
            with pytest.raises(ConnectionError, match="failed before"):
                forked(self.ORDER, str(tmp_path))

    def test_workers_are_started_by_ray_then(self, tmp_path: Path) -> None:
        (tmp_path / "workers.failed").touch()
        service = Service(tmp_path)
        try:
            worker = service.start_worker("k")
        finally:
            service.end()

        assert worker["mark"] == "k"
        assert not worker["torch"]
        assert not (tmp_path / "workers.sock").exists()


class TestTimerLibrary:
    @pytest.mark.parametrize(
        "compiler",
        ["#!/bin/sh\nexec sleep 60\n", '#!/bin/sh\necho part > "$5"\nexit 1\n', "#!/no/such/interpreter\n"],
        ids=["hangs", "fails", "does not run"],
    )
    def test_a_service_needs_no_compiler_that_works(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
    ) -> None:
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin" / "cc"
        script.write_text(compiler, encoding="ascii")
        script.chmod(0o700)
        monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
        monkeypatch.setattr(environment, "COMPILER_S", 0.3)
        assert shutil.which("cc") == str(script)

        prepare_directory(tmp_path / "service")

        assert not list((tmp_path / "service").glob("slow_timers.*"))


def test_short_waits_of_the_main_thread_take_longer_and_no_others(tmp_path: Path) -> None:
    prepare_directory(tmp_path)
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "slow_timers.so")}

    done = subprocess.run(
        [sys.executable, "-c", WAIT], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    short, longer, of_a_thread = map(float, done.stdout.split())
    assert short >= 0.099
    assert 0.039 <= longer < short
    assert 0.004 <= of_a_thread < short


def test_the_dashboard_loads_what_a_service_needs() -> None:
    assert with_modules(["python"], "dashboard") == ["python", f"--modules-to-load={','.join(DASHBOARD_MODULES)}"]
    assert with_modules(["python"], "raylet") == ["python"]
