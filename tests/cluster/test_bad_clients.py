"""Clients that are slow or never finish, at the real HAProxy with the config that Ray writes and our wrapper mends:
each is let go in time, and a client that only waits is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from engine.api import Delta, FinishReason, GenerationRequest, Usage
from load_tests.clients.attacks import Attack, Outcome, Target, attack
from router.ports.tier_backend import OnPlaced, OnUsage
from tests.cluster.graph import eventually
from tests.cluster.haproxy import HeldFor, haproxy
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, KEY, Served

HEADER_S, CLIENT_S, BODY_S = 1, 2, 1.0
PAUSE_S = CLIENT_S + 1.5  # longer than a client may be idle that has to send or to read


class Pausing(ScriptedBackend):
    """Says nothing for PAUSE_S in the middle of an answer."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        yield [Delta(request.request_id, (1,), "Hello")]
        await asyncio.sleep(PAUSE_S)
        yield [Delta(request.request_id, (2,), " again", FinishReason.STOP, Usage(1, 2, 0))]


class Talkative(ScriptedBackend):
    """Says far more than all buffers on the way hold."""

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        return ["word " * 20_000] * 200


class Wordy(ScriptedBackend):
    """Says less than Linux would hold for one connection (4 MiB), and more than it may."""

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        return ["word " * 20_000] * 15


class Edge:
    """A router behind HAProxy."""

    def __init__(self, served: Served, url: str) -> None:
        self.served = served
        self.url = url

    def attack(self, kind: Attack) -> Outcome:
        """What becomes of one bad client."""
        address = urlsplit(self.url)
        target = Target(str(address.hostname), int(address.port or 0), KEY, interval_s=0.1)

        async def run() -> Outcome:
            async with asyncio.timeout(20):
                return await attack(kind, target, 1)

        return asyncio.run(run())


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A router behind HAProxy, both with short time-outs."""
    served = Served(CONFIG.model_copy(update={"body_timeout_s": BODY_S}))
    times = HeldFor(HEADER_S, CLIENT_S)
    with haproxy(tmp_path_factory.mktemp("haproxy"), [int(urlsplit(served.url).port or 0)], times) as url:
        yield Edge(served, url)
    served.stop()


@pytest.mark.parametrize("kind", [Attack.HALF_OPEN, Attack.HEADER_FLOOD])
def test_a_request_whose_headers_do_not_end_is_let_go(edge: Edge, kind: Attack) -> None:
    outcome = edge.attack(kind)
    assert outcome.status == 408
    assert outcome.closed_s is not None
    assert outcome.closed_s < HEADER_S + 1.5


def test_a_request_whose_body_does_not_end_is_let_go(edge: Edge) -> None:
    outcome = edge.attack(Attack.TRICKLE)
    assert outcome.status == 408
    assert outcome.closed_s is not None
    assert outcome.closed_s < BODY_S + CLIENT_S + 1.5  # HAProxy waits for the rest as for any client


BODY = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}).encode()


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (f"Content-Length: {len(BODY)}", BODY),
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    ],
    ids=["length", "chunked"],
)
def test_a_client_that_offers_http_2_is_answered_in_http_1(edge: Edge, framing: str, body: bytes) -> None:
    """Kludex/uvicorn#2722, vllm-project/vllm#57203, langchain4j/langchain4j#3682: the body was lost."""
    address = urlsplit(edge.url)
    edge.served.backend = ScriptedBackend()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{framing}\r\n"
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n\r\n"
    )
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        answer = HTTPResponse(connection)
        answer.begin()
        told = answer.read()

    assert answer.status == 200, told
    assert json.loads(told)["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("offered", "kept"),
    [
        (["trace-1.2:3/4+5=6@7"], True),
        (["a" * 128], True),
        (["a" * 129], False),
        (["a b"], False),
        (["a\tb"], False),
        (["a,b"], False),
        (["é"], False),
        (["one", "two"], False),
    ],
    ids=str,
)
def test_an_id_that_the_router_would_replace_does_not_reach_serve(echo: str, offered: list[str], kept: bool) -> None:
    """Serve repeats the id in the response, which would be another than that of ledger and log. Without one it makes
    one, which the router takes."""
    headers = [(b"x-request-id", each.encode("latin-1")) for each in offered]
    assert httpx.get(f"{echo}/v1/models", headers=headers).json() == (offered if kept else [])


def test_a_client_that_does_not_read_is_let_go_and_its_work_is_aborted(edge: Edge) -> None:
    backend = edge.served.backend = Talkative()
    address = urlsplit(edge.url)
    target = Target(str(address.hostname), int(address.port or 0), KEY, interval_s=3600)

    async def run() -> None:
        reading = asyncio.create_task(attack(Attack.SLOW_READER, target, 1))
        began = time.monotonic()
        while not backend.closed:
            assert time.monotonic() - began < CLIENT_S + 5
            await asyncio.sleep(0.05)
        reading.cancel()

    asyncio.run(run())


class Echo(BaseHTTPRequestHandler):
    """Answers with the ids of a request, as a router behind HAProxy gets them, and the status that its test expects."""

    def do_GET(self) -> None:
        body = json.dumps(self.headers.get_all("x-request-id", [])).encode()
        self.send_response(401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            with haproxy(tmp_path_factory.mktemp("echo"), [server.server_port], HeldFor(HEADER_S, CLIENT_S)) as url:
                yield url
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture
def unread(edge: Edge) -> Iterator[socket.socket]:
    """A connection that has asked for an answer of 1.5 MB and reads nothing."""
    edge.served.backend = Wordy()
    address = urlsplit(edge.url)
    body = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", "connection: close"]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((str(address.hostname), int(address.port or 0)))
        client.sendall(head + body)
        yield client


def test_an_answer_that_is_not_read_ends_though_the_buffers_of_the_kernel_would_hold_it(unread: socket.socket) -> None:
    time.sleep(CLIENT_S + 1.5)
    unread.settimeout(20)
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := unread.recv(65536):
            received += piece
    assert b"[DONE]" not in received


def test_what_a_client_does_not_acknowledge_is_dropped_by_the_kernel(unread: socket.socket) -> None:
    port = unread.getsockname()[1]

    def held() -> bool:
        """Whether the server's side of the connection is there, be it of no process any more."""
        return any(each.raddr and each.raddr.port == port for each in psutil.net_connections("tcp4"))

    eventually(held, "the connection is there", 5)
    eventually(lambda: not held(), "it is dropped", 20)


def test_a_client_that_waits_for_a_slow_answer_is_not_let_go(edge: Edge) -> None:
    edge.served.backend = Pausing()
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    headers = {"authorization": f"Bearer {KEY}"}
    response = httpx.post(f"{edge.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert response.status_code == 200
    assert " again" in response.text
    assert response.text.rstrip().endswith("[DONE]")
