"""``manta doctor`` on ports that are open and should not be: real listeners, and what is said of them."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor.facts import Facts, HostFacts, NodeFacts
from cluster.doctor.finding import Finding, Severity
from cluster.doctor.port_checks import port_findings
from cluster.doctor.port_facts import (
    DASHBOARD,
    GCS,
    WATCHED,
    answers_without_token,
    network_listeners,
    redis_without_password,
)
from cluster.local.redis_server import RedisServer, redis_binary
from tests.doctor.command import PASSWORD, config, doctor
from tests.doctor.good_node import GOOD
from tests.state.conftest import free_port

HOST = f"127.{64 + (os.getpid() >> 16)}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""An address of this machine, as all of 127/8, and of no other process of the tests: the usual ports are free there."""


@pytest.fixture
def free_ports() -> None:
    """Skips a test of usual ports where a server listens on one at all addresses, so also at HOST."""
    taken = [port for port, address in network_listeners().items() if ip_address(address).is_unspecified]
    if taken:
        pytest.skip(f"other servers of this machine listen on {taken}")


@contextmanager
def jobs_api(status: int, host: str = HOST, port: int = DASHBOARD) -> Iterator[None]:
    """A server that answers every request as Ray's API of jobs does: 200 without a token, or 401."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def redis_at(directory: Path, port: int, host: str = HOST, *settings: str) -> Iterator[None]:
    """A Redis whose only settings these are."""
    command = [str(redis_binary()), "--bind", host, "--port", str(port), "--dir", str(directory), "--save", ""]
    process = subprocess.Popen([*command, *settings], stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            if redis_without_password(host, port) is not None:
                break
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.usefixtures("free_ports")
def test_jobs_that_anyone_may_start_are_an_error_with_its_remedy() -> None:
    with jobs_api(200):
        found, status = doctor("--closed", HOST)
    finding = found[f"closed port {DASHBOARD} of {HOST}"]
    assert "answers without a token" in finding["seen"]
    assert "RAY_AUTH_MODE=token" in finding["remedy"]
    assert status == 1


@pytest.mark.usefixtures("free_ports")
def test_a_dashboard_that_wants_a_token_should_not_be_reached_either() -> None:
    with jobs_api(401):
        found, status = doctor("--closed", HOST)
    finding = found[f"closed port {DASHBOARD} of {HOST}"]
    assert finding["seen"] == "Ray's dashboard and its API of jobs can be reached from here"
    assert "--dashboard-host=127.0.0.1" in finding["remedy"]
    assert status == 1


@pytest.mark.usefixtures("free_ports")
@pytest.mark.parametrize(
    ("settings", "seen"), [((), "without a password"), (("--requirepass", PASSWORD), "its password alone")]
)
def test_a_redis_that_can_be_reached_from_outside(tmp_path: Path, settings: tuple[str, ...], seen: str) -> None:
    with redis_at(tmp_path, GCS, HOST, *settings):
        found, status = doctor("--closed", HOST)
    assert seen in found[f"closed port {GCS} of {HOST}"]["seen"]
    assert "requirepass" in found[f"closed port {GCS} of {HOST}"]["remedy"]
    assert status == 1


@pytest.mark.usefixtures("free_ports")
@pytest.mark.parametrize("port", [10001, 8080, 9101, 8500])
def test_each_inner_port_that_is_open_is_named(port: int) -> None:
    with socket.create_server((HOST, port)):
        found, _ = doctor("--closed", HOST)
    finding = found[f"closed port {port} of {HOST}"]
    assert finding["seen"] == f"{WATCHED[port]} can be reached from here"
    assert "firewall" in finding["remedy"]


@pytest.mark.parametrize(("status", "is_open"), [(200, True), (401, False), (403, False), (404, None), (500, None)])
def test_the_api_of_jobs_is_known_by_its_answer_without_a_token(status: int, is_open: bool | None) -> None:
    port = free_port()
    with jobs_api(status, "127.0.0.1", port):
        assert answers_without_token("127.0.0.1", port) is is_open
    assert answers_without_token("127.0.0.1", port) is None


@pytest.mark.usefixtures("free_ports")
def test_a_host_without_open_ports_is_fine() -> None:
    found, _ = doctor("--closed", HOST)
    assert found[f"closed ports of {HOST}"]["severity"] == "ok"


def test_a_redis_of_the_config_that_wants_no_password(tmp_path: Path, redis_server: RedisServer) -> None:
    port = free_port()
    with redis_at(tmp_path, port, "127.0.0.1"):
        found, status = doctor(config(tmp_path, state={"url": f"redis://127.0.0.1:{port}/0"}))
    assert found["password of redis"]["severity"] == "error"
    assert status == 1
    found, _ = doctor(config(tmp_path, state={"url_file": str(redis_server.url_file)}))
    assert found["password of redis"]["severity"] == "ok"


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "0.0.0.0"), ("::", "::"), ("127.0.0.1", None), ("::1", None)]
)
def test_a_port_is_exposed_by_the_address_it_listens_on(host: str, address: str | None) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("no IPv6")
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert network_listeners([port]) == ({} if address is None else {str(port): address})
    assert network_listeners([port]) == {}


def test_the_kernels_table_is_read_word_by_word(tmp_path: Path) -> None:
    rows = [
        "  sl  local_address rem_address   st",
        "   0: 0100000A:1F90 00000000:0000 0A 00000000:00000000",  # 10.0.0.1:8080 listens
        "   1: 00000000:2049 00000000:0000 01 00000000:00000000",  # a connection
        "   2: 0000000000000000FFFF00000200000A:1F90 00000000000000000000000000000000:0000 0A 0",  # ::ffff:10.0.0.2
        "   3: B80D0120000000000000000001000000:2711 00000000000000000000000000000000:0000 0A 0",  # 2001:db8::1
    ]
    (tmp_path / "tcp").write_text("\n".join(rows))
    found = network_listeners(WATCHED, [tmp_path / "none", tmp_path / "tcp"])
    assert found == {"8080": "10.0.0.1", "10001": "2001:db8::1"}


def of_node(**fields: Any) -> list[Finding]:
    return list(port_findings(Facts(1.0, replace(GOOD, **fields))))


NO_TOKEN = {"variables": {"RAY_AUTH_MODE": None}}


@pytest.mark.parametrize(
    ("fields", "severity", "seen"),
    [
        ({"listeners": {}}, "ok", "no port is open"),
        ({"listeners": {"8265": "0.0.0.0"}, "jobs_open": True}, "error", "on 0.0.0.0 without a token"),
        ({"listeners": {"8265": "0.0.0.0"}, "jobs_open": False}, "warning", "the token alone"),
        ({"listeners": {"8265": "0.0.0.0"}, "jobs_open": False, "in_pod": True}, "ok", "no port is open"),
        ({"listeners": {"8265": "0.0.0.0"}, "jobs_open": True, "in_pod": True}, "error", "without a token"),
        ({"listeners": {}, "jobs_open": True}, "warning", "every process of this machine"),
        ({"listeners": {"10001": "10.0.0.1"}, "jobs_open": True}, "error", "Ray Client listens on 10.0.0.1"),
        ({"listeners": {"10001": "0.0.0.0"}}, "ok", "no port is open"),  # GOOD has a token
        ({"listeners": {"10001": "0.0.0.0"}, **NO_TOKEN}, "error", "without a token"),
        ({"listeners": {"6379": "0.0.0.0"}, **NO_TOKEN}, "error", "Ray's GCS"),
        ({"listeners": {"6379": "0.0.0.0"}, "redis_open": True}, "error", "Redis listens on 0.0.0.0"),
        ({"listeners": {"6379": "0.0.0.0"}, "redis_open": False, **NO_TOKEN}, "ok", "no port is open"),
        ({"listeners": {"8080": "0.0.0.0", "9101": "0.0.0.0"}, **NO_TOKEN}, "ok", "no port is open"),
    ],
)
def test_what_listens_for_the_network_is_judged_by_what_protects_it(
    fields: dict[str, Any], severity: str, seen: str
) -> None:
    (found,) = of_node(**fields)
    assert found.severity == severity
    assert seen in found.seen
    assert bool(found.remedy) == (severity != "ok")


def test_every_node_of_a_cluster_is_looked_at() -> None:
    nodes: list[NodeFacts] = [
        replace(GOOD, listeners={}),
        replace(GOOD, node="10.0.0.2", listeners={"8265": "0.0.0.0"}, jobs_open=True),
    ]
    found = list(port_findings(Facts(1.0, GOOD, nodes=nodes, hosts=[HostFacts("edge")])))
    assert [each.name for each in found if each.severity is Severity.ERROR] == ["port 8265 of 10.0.0.2"]
    assert found[-1].severity is Severity.OK
