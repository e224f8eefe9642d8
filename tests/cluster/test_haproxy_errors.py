"""What clients read when HAProxy answers for want of a router: OpenAI's error object, as the router's own errors."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.cluster.haproxy import HeldFor, haproxy

ERRORS = Path(__file__).resolve().parents[2] / "deployments" / "haproxy_errors"
HELD = HeldFor(header_s=1, client_s=2)
QUESTION: Any = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}


class Router(BaseHTTPRequestHandler):
    """Answers HAProxy's health checks, and hangs up on all other requests."""

    def do_GET(self) -> None:
        self.send_error(401)

    def do_POST(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
        pass


@contextmanager
def served() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Router)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def told(url: str, request: bytes) -> tuple[int, str, dict[str, Any]]:
    """The status, the content type and the error that follow these bytes."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20) as connection:
        connection.sendall(request)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, str(answer.getheader("content-type")), json.loads(answer.read())["error"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served() as server, haproxy(tmp_path_factory.mktemp("haproxy"), [server.server_port], HELD) as found:
        yield found


def test_a_router_that_hangs_up_is_told_in_the_shape_of_openais_errors(url: str) -> None:
    status, content_type, error = told(url, b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert (status, content_type) == (502, "application/json")
    assert error == {"message": error["message"], "type": "server_error", "param": None, "code": "router_lost"}


@pytest.mark.parametrize("path", sorted(ERRORS.iterdir()), ids=lambda path: path.name)
def test_each_error_names_its_status_and_has_all_members(path: Path) -> None:
    head, _, body = path.read_text().partition("\n\n")
    assert head.startswith(f"HTTP/1.1 {path.stem} ")
    assert "Content-Type: application/json" in head.splitlines()
    assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}


def test_openais_client_reads_that_no_router_is_ready(tmp_path: Path) -> None:
    with served() as server, haproxy(tmp_path, [server.server_port], HELD) as url:
        server.shutdown()
        server.server_close()
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, timeout=20)
        with client, pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(**QUESTION)
    assert raised.value.status_code == 503
    assert raised.value.code == "router_unavailable"
    assert raised.value.response.headers["retry-after"] == "1"
