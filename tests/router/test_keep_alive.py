"""A stream that is silent for a while stays open behind proxies that close silent connections: BerriAI/litellm#37322,
maximhq/bifrost#5010, CopilotKit/CopilotKit#6980."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from router.transport.http_exchange import HttpExchange
from router.transport.keep_alive import COMMENT, COMMENT_LINE
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, Served

INTERVAL_S = 0.02


class Client:
    """What a client receives. ``reads`` is cleared while it does not read."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.waiting = 0
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, message: Any) -> None:
        self.waiting += 1
        await self.reads.wait()
        self.waiting -= 1
        if message["type"] == "http.response.body":
            self.bodies.append(message["body"])

    @property
    def comments(self) -> int:
        return self.bodies.count(COMMENT) + self.bodies.count(COMMENT_LINE)

    def exchange(self, keep_alive_s: float | None = INTERVAL_S) -> HttpExchange:
        async def receive() -> dict[str, Any]:
            raise AssertionError("the body of the request is not read")

        scope = {"type": "http", "path": "/", "method": "POST", "headers": []}
        return HttpExchange(scope, receive, self.send, keep_alive_s=keep_alive_s)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - it is what a client has received, without an event
            await asyncio.sleep(0.001)


async def test_a_silent_stream_gets_comments_between_its_events_and_none_after_its_end() -> None:
    client, goes_on = Client(), asyncio.Event()

    async def batches() -> AsyncGenerator[list[str], None]:
        yield ["first"]
        await goes_on.wait()
        yield ["second"]

    streaming = asyncio.create_task(client.exchange().stream(batches(), list))
    await until(lambda: client.comments >= 2)
    goes_on.set()
    await streaming
    sent = list(client.bodies)
    await asyncio.sleep(5 * INTERVAL_S)

    assert sent[0] == b"data: first\n\n"
    assert sent[-2:] == [b"data: second\n\n", b""]
    assert client.bodies == sent
    assert COMMENT.startswith(b":")
    assert COMMENT.endswith(b"\n\n")


async def test_before_its_first_event_a_stream_has_no_status_and_no_comment() -> None:
    client, goes_on = Client(), asyncio.Event()

    async def batches() -> AsyncGenerator[list[str], None]:
        await goes_on.wait()
        yield ["first"]

    exchange = client.exchange()
    streaming = asyncio.create_task(exchange.stream(batches(), list))
    await asyncio.sleep(5 * INTERVAL_S)
    begun = exchange.started
    goes_on.set()
    await streaming

    assert not begun
    assert not client.comments


async def test_a_busy_stream_gets_none() -> None:
    client, interval_s = Client(), 0.5

    async def batches() -> AsyncGenerator[list[str], None]:
        for number in range(60):
            yield [str(number)]
            await asyncio.sleep(0.02)

    await client.exchange(interval_s).stream(batches(), list)

    assert client.comments == 0


async def test_a_client_that_does_not_read_is_sent_one_at_a_time() -> None:
    client, goes_on = Client(), asyncio.Event()

    async def batches() -> AsyncGenerator[list[str], None]:
        yield ["first"]
        await goes_on.wait()

    streaming = asyncio.create_task(client.exchange().stream(batches(), list))
    await until(lambda: client.comments)
    client.reads.clear()
    await until(lambda: client.waiting)
    await asyncio.sleep(5 * INTERVAL_S)
    waiting = client.waiting
    client.reads.set()
    goes_on.set()
    await streaming

    assert waiting == 1


async def test_a_stream_that_fails_gets_its_error_last() -> None:
    client = Client()

    async def batches() -> AsyncGenerator[list[str], None]:
        yield ["first"]
        await until(lambda: client.comments)
        raise RuntimeError

    exchange = client.exchange()
    with pytest.raises(RuntimeError):
        await exchange.stream(batches(), list)
    sent = list(client.bodies)
    await asyncio.sleep(5 * INTERVAL_S)

    assert client.bodies == sent


async def test_a_resumable_stream_gets_them_too() -> None:
    client = Client()

    async def parts() -> AsyncGenerator[tuple[int, Sequence[str]], None]:
        yield 1, ["first"]
        await until(lambda: client.comments)

    await client.exchange().stream_numbered(parts())

    assert client.bodies[0] == b"id: 1\ndata: first\n\n"
    assert set(client.bodies[1:-1]) == {COMMENT_LINE}


async def test_without_the_setting_there_are_none() -> None:
    client = Client()

    async def batches() -> AsyncGenerator[list[str], None]:
        yield ["first"]
        await asyncio.sleep(5 * INTERVAL_S)

    await client.exchange(None).stream(batches(), list)

    assert client.comments == 0


class Pauses(ScriptedBackend):
    """Falls silent after its first words."""

    async def generate(self, *arguments: Any, **named: Any) -> Any:
        async for deltas in super().generate(*arguments, **named):
            yield deltas
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(("detach", "comment"), [(False, COMMENT), (True, COMMENT_LINE)])
def test_the_library_reads_over_them(detach: bool, comment: bytes) -> None:
    """It takes a blank line after an event with an id for one without data, so that a stream that can be resumed has
    comments of one line."""
    served = Served(CONFIG.model_copy(update={"stream_keep_alive_s": INTERVAL_S}))
    asked: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    own = {"detach": detach}
    try:
        served.backend = Pauses()
        raw = served.http.post("/v1/chat/completions", json=asked | own)
        chunks = served.openai.chat.completions.create(**asked, extra_body=own)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    finally:
        served.stop()

    assert raw.content.count(comment) >= 3
    assert raw.content.endswith(b"data: [DONE]\n\n")
    assert ("x-manta-stream" in raw.headers) == detach
    assert text == "Hello, wörld! 🎉"
