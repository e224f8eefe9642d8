"""``manta doctor`` on real faults: a Redis that is set up badly, ports in use, certificates, limits, drift."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from typer.testing import CliRunner

from cluster.admin.client import AdminClient
from cluster.admin.main import app
from cluster.doctor.cluster_facts import cluster_facts
from cluster.doctor.node_facts import constraints, node_facts, unreadable
from cluster.doctor.service_facts import running_facts
from cluster.local.redis_server import RedisServer
from tests.doctor.command import PASSWORD, SECRET, config, doctor
from tests.doctor.conftest import MakeCertificate
from tests.state.conftest import free_port, wait_until_ready

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_config_it_looks_at_this_machine() -> None:
    found, _ = doctor()
    assert found["python"]["severity"] == "ok"
    assert found["clock of this machine"]["severity"] == "ok"
    assert found["config"]["severity"] == "skipped"


def test_a_redis_with_a_bad_policy_and_no_persistence(tmp_path: Path, redis_server: RedisServer) -> None:
    path = config(tmp_path, state={"url_file": str(redis_server.url_file)})
    found, status = doctor(path)
    assert found["redis policy"]["severity"] == found["redis persistence"]["severity"] == "ok"
    assert found["clock of redis"]["severity"] == "ok"
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
    found, status = doctor(path)
    assert "allkeys-lru" in found["redis policy"]["seen"]
    assert "noeviction" in found["redis policy"]["remedy"]
    assert found["redis persistence"]["severity"] == "error"
    assert status == 1


def test_a_redis_whose_user_may_not_look_is_not_called_wrong(tmp_path: Path, redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL", "SETUSER", "manta", "on", f">{PASSWORD}", "~*", "+@read", "+@write", "+ping")
    url = redis_server.url.rpartition("@")[2]
    found, _ = doctor(config(tmp_path, state={"url": f"redis://manta:{PASSWORD}@{url}"}))
    assert found["redis"]["severity"] == "ok"
    assert found["redis settings"]["severity"] == "skipped"


def test_a_wrong_password_of_redis_is_an_error_that_does_not_show_it(tmp_path: Path, redis_server: RedisServer) -> None:
    address = redis_server.url.rpartition("@")[2]
    found, status = doctor(config(tmp_path, state={"url": f"redis://:{PASSWORD}@{address}"}))
    assert "refuses the login: AuthenticationError" in found["redis"]["seen"]
    assert status == 1


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("rest", [f"{PASSWORD}/slash@127.0.0.1:1/0", "p@127.0.0.1:99999/0", "p@[::1"])
def test_an_address_of_redis_that_cannot_be_read_is_an_error_without_it(tmp_path: Path, scheme: str, rest: str) -> None:
    found, status = doctor(config(tmp_path, state={"url": f"{scheme}://:{rest}"}))
    assert "state.url: host or port cannot be read" in found["config"]["seen"]
    assert status == 1
    (tmp_path / "url").write_text(f"{scheme}://:{rest}")
    found, status = doctor(config(tmp_path, state={"url_file": str(tmp_path / "url")}))
    assert "state.url: host or port cannot be read" in found["redis"]["seen"]
    assert status == 1


def test_a_managed_redis_without_the_command_config_is_not_called_wrong(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "managed", free_port())
    settings = tmp_path / "managed" / "redis.conf"
    settings.write_text(settings.read_text().replace("appendonly yes", "appendonly no") + 'rename-command CONFIG ""\n')
    server.start()
    wait_until_ready(server)
    found, _ = doctor(config(tmp_path, state={"url": server.url}))
    server.stop()
    assert found["redis"]["severity"] == "ok"
    assert found["redis settings"]["severity"] == "skipped"


def test_a_redis_that_is_no_cluster_is_told(tmp_path: Path, redis_server: RedisServer) -> None:
    found, status = doctor(config(tmp_path, state={"url": redis_server.url, "cluster": True}))
    assert "cannot be reached" in found["redis"]["seen"]
    assert status == 1


def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    found, _ = doctor(config(tmp_path, state={"url": f"redis://:{PASSWORD}@127.0.0.1:{free_port()}"}))
    assert "cannot be reached" in found["redis"]["seen"]
    found, _ = doctor(config(tmp_path, state={"url_file": str(tmp_path / "none")}))
    assert "No such file" in found["redis"]["seen"]


@contextmanager
def silent() -> Iterator[int]:
    """A server that accepts connections and says nothing; its port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


def test_what_hangs_does_not_make_it_hang(tmp_path: Path) -> None:
    with silent() as port:
        began = time.monotonic()
        path = config(tmp_path, port, state={"url": f"rediss://:{PASSWORD}@127.0.0.1:{port}"})
        found, status = doctor(path, "--dashboard", f"http://127.0.0.1:{port}", "--tls", f"127.0.0.1:{port}")
        assert time.monotonic() - began < 30
    assert status == 1
    assert found["redis"]["severity"] == "error"
    assert found["serve"]["seen"] == "Ray's dashboard cannot be reached: ReadTimeout"
    assert "TLS does not begin" in found[f"certificate 127.0.0.1:{port}"]["seen"]
    assert "something else listens" in found[f"port {port}"]["seen"]


def test_a_cluster_that_hangs_is_given_up() -> None:
    with silent() as port:
        nodes, fault = cluster_facts(f"127.0.0.1:{port}", [], [], timeout_s=3.0)
    assert nodes == []
    assert "does not answer within 3 s" in fault


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = config(tmp_path, tiers=[{"name": "fast", "engine": {"model": str(tmp_path / "gone")}}])
    found, status = doctor(path)
    assert found[f"model {tmp_path}/gone on this machine"]["severity"] == "error"
    assert status == 1
    (tmp_path / "empty").mkdir()
    assert unreadable(str(tmp_path / "empty")) == "the directory has no files"
    (tmp_path / "empty" / "weights").symlink_to(tmp_path / "nowhere")  # as a mount that has gone leaves them
    assert unreadable(str(tmp_path / "empty")) == "the directory has no files"
    assert unreadable("package:no-such-package/model") != ""


def test_gpus_that_the_config_wants_and_the_machine_has_not(tmp_path: Path) -> None:
    if node_facts("here", [], []).gpus:
        pytest.skip("this machine has GPUs")
    tier = {"name": "fast", "num_gpus": 1, "replicas": 2, "engine": {"model": str(tmp_path), "device": "cuda"}}
    found, _ = doctor(config(tmp_path, tiers=[tier]))
    assert found["GPUs"]["seen"] == "0 GPUs for replicas that need 2"


def test_a_config_that_the_service_refuses_is_told_without_its_values(tmp_path: Path) -> None:
    found, status = doctor(config(tmp_path, ingress={"replica": SECRET}))
    assert "ingress.replica: Extra inputs are not permitted" in found["config"]["seen"]
    assert status == 1
    (tmp_path / "serve.yaml").write_text(f"a: [{SECRET}")
    assert "it is no YAML at line 1, column 21" in doctor(tmp_path / "serve.yaml")[0]["config"]["seen"]
    assert doctor(tmp_path / "missing.yaml")[0]["config"]["severity"] == "error"


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"applications: 5", "`applications` is a list"),
        (b"applications: [text]", "`applications` is a list of mappings"),
        (b"applications: [{}]\nhttp_options: 5", "`http_options` is a mapping"),
        (b"applications: [{}]", "no application has the import_path"),
    ],
)
def test_a_file_that_is_no_serve_config_is_told_without_a_traceback(tmp_path: Path, data: bytes, seen: str) -> None:
    (tmp_path / "serve.yaml").write_bytes(data)
    found, status = doctor(tmp_path / "serve.yaml")
    assert seen in found["config"]["seen"]
    assert status == 1


def test_a_journal_whose_directory_cannot_be_looked_at_has_no_free_room(tmp_path: Path) -> None:
    found, _ = doctor(config(tmp_path, state={"journal": f"{tmp_path}/{'x' * 300}/journal"}))
    assert "free at" in found["disk of this machine"]["seen"]


class Dashboard(BaseHTTPRequestHandler):
    """Answers as Ray's dashboard does."""

    document: dict[str, Any]

    def do_GET(self) -> None:
        known = self.headers.get("authorization") == "Bearer right"
        self.send_response(200 if known else 401)
        self.end_headers()
        if known:
            self.wfile.write(json.dumps(self.document).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def dashboard(document: dict[str, Any]) -> Iterator[str]:
    handler = type("Handler", (Dashboard,), {"document": document})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_runs_is_compared_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)  # that of a cluster of other tests
    path = config(tmp_path)
    args = yaml.safe_load(path.read_text())["applications"][0]["args"]
    changed = args | {
        "ingress": {"replicas": 1},
        "router": {"keys": [{**args["router"]["keys"][0], "key": "sk-other"}]},
    }

    def deployed(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"applications": {"manta": {"status": "RUNNING", "deployed_app_config": {"args": arguments}}}}

    with dashboard(deployed(args)) as url:
        found, _ = doctor(path, "--dashboard", url, "--ray-token", "right")
        assert found["config of manta"]["severity"] == "ok"
        assert found["application manta"]["seen"] == "RUNNING"
        assert "nothing listens there" in next(row["seen"] for name, row in found.items() if name.startswith("port "))
        wrong, _ = doctor(path, "--dashboard", url, "--ray-token", PASSWORD)
        assert wrong["serve"]["seen"] == "Ray's dashboard answers 401"
        assert "RAY_AUTH_TOKEN" in wrong["serve"]["remedy"]
        (tmp_path / "token").write_text("right\n")  # RAY_AUTH_TOKEN_PATH, by which nodes have it too
        found, _ = doctor(path, "--dashboard", url, "--ray-token-path", tmp_path / "token")
        assert found["application manta"]["seen"] == "RUNNING"
    with dashboard(deployed(changed)) as url:
        found, _ = doctor(path, "--dashboard", url, "--ray-token", "right")
    assert found["config of manta"]["seen"] == "what runs differs from the file at router.keys[0].key, ingress"
    assert "sk-other" not in json.dumps(found)


def test_serve_says_on_which_nodes_are_its_proxies_and_what_needs_redis() -> None:
    def replicas(*addresses: str) -> dict[str, Any]:
        return {"replicas": [{"node_ip": address} for address in addresses]}

    deployments = {
        "Router": replicas("10.0.0.2", "10.0.0.3"),
        "SemanticCache": replicas("10.0.0.4"),
        "fast": replicas("10.0.0.5"),
    }
    document = {
        "applications": {"manta": {"status": "RUNNING", "deployments": deployments}},
        "proxies": {"n1": {"node_ip": "10.0.0.1", "status": "HEALTHY"}},
    }
    with dashboard(document) as url:
        found = running_facts(url, "right")
    assert found.proxies == {"10.0.0.1": "HEALTHY"}
    assert set(found.redis_users) == {"10.0.0.2", "10.0.0.3", "10.0.0.4"}


def test_models_are_looked_for_where_the_replicas_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray runs them in the working_dir of the application, which is the checkout of a release."""
    path = config(tmp_path, tiers=[{"name": "fast", "engine": {"model": "model"}}])
    document = yaml.safe_load(path.read_text())
    document["applications"][0]["runtime_env"] = {"working_dir": f"local://{tmp_path}"}
    monkeypatch.chdir("/")
    assert doctor(path)[0]["model model on this machine"]["severity"] == "error"
    path.write_text(yaml.safe_dump(document))
    assert doctor(path)[0][f"model {tmp_path}/model on this machine"]["severity"] == "ok"


def test_a_port_in_use_is_told_from_a_service(tmp_path: Path) -> None:
    with silent() as port:
        assert doctor(config(tmp_path, port))[0][f"port {port}"]["severity"] == "error"
    assert doctor(config(tmp_path, port))[0][f"port {port}"]["seen"] == "free"


@pytest.mark.parametrize(("days", "severity"), [(-2, "error"), (5, "warning"), (60, "ok")])
def test_a_certificate_in_a_file(make_certificate: MakeCertificate, days: float, severity: str) -> None:
    path, _ = make_certificate(days)
    found, _ = doctor("--certificate", path)
    assert found[f"certificate {path}"]["severity"] == severity


def test_a_certificate_that_a_server_shows(make_certificate: MakeCertificate) -> None:
    certificate, key = make_certificate(-2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]

        def serve() -> None:
            connection, _ = plain.accept()
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        found, status = doctor("--tls", f"127.0.0.1:{port}")
        thread.join()
    assert "expired 2 days ago" in found[f"certificate 127.0.0.1:{port}"]["seen"]
    assert status == 1


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("nothing")
    found, _ = doctor("--certificate", tmp_path / "tls.crt", "--certificate", tmp_path / "none.crt")
    assert found[f"certificate {tmp_path}/tls.crt"]["seen"] == "it is no certificate in PEM"
    assert "No such file" in found[f"certificate {tmp_path}/none.crt"]["seen"]


def run_limited(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process with 256 file descriptors and these environment variables."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    return subprocess.run(
        [sys.executable, "-m", "cluster.admin", "doctor", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **variables},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_low_limit_and_wrong_variables_are_errors_in_words() -> None:
    done = run_limited({"RAY_AUTH_MODE": "token", "RAY_SERVE_ENABLE_HA_PROXY": "0"}, "--problems")
    assert done.returncode == 1, done.stderr
    assert "a process may have 256" in done.stdout
    assert "RAY_SERVE_ENABLE_HA_PROXY is '0'" in done.stdout
    assert "RAY_AUTH_MODE is token, but there is no token" in done.stdout
    assert "→ Start the node with RAY_SERVE_ENABLE_HA_PROXY=1." in done.stdout
    hidden = run_limited({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": PASSWORD}, "--problems")
    assert "no token" not in hidden.stdout
    assert PASSWORD not in hidden.stdout + hidden.stderr


def test_versions_other_than_those_that_were_tested_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("# pins\nPyYAML==6.0.3  # a comment\nzope.interface==1.0\n\nray[serve]\n")
    assert constraints(path) == {"pyyaml": "6.0.3", "zope-interface": "1.0"}
    assert constraints(tmp_path / "none") is None


@pytest.mark.parametrize("address", ["nohost", "host:", "host:0", "host:99999", ":443"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--tls", address], obj=AdminClient("http://127.0.0.1:9", ""))
    assert result.exit_code == 2
