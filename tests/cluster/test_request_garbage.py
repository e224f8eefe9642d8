"""A request leaves nothing that only Python's garbage collector would find.

Not held to it are requests that lose their replica or run into the time limit, and streams that fail after they have
begun: these are few. With hundreds of streams a collection walks a hundred thousand objects, and the event loop stands
still meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import Message

from tests.cluster.otlp_receiver import Received
from tests.cluster.traced_service import KEY, Service, service

NOWHERE = Received("http://127.0.0.1:9/v1/traces")
REQUESTS = 12
SETTLE_S = 0.2  # for what ends a moment after the response

LONG = "word " * 150
CASES: Mapping[str, Mapping[str, Any]] = {
    "whole": {},
    "streamed": {"stream": True},
    "several choices": {"stream": True, "n": 3, "seed": 1},
    "idempotent": {"idempotent": True},
    "a cache hit": {"content": "the same", "guided_choice": ["yes"], "status": (200, "exact")},
    "left in the middle": {"stream": True, "ignore_eos": True, "max_tokens": 400, "leave": 2},
    "left before the answer": {"ignore_eos": True, "max_tokens": 400, "leave": 0, "status": (0, "")},
    "refused by the guard": {"content": "HARM", "status": (400, "")},
    "too long": {"content": "word " * 5000, "status": (400, "")},
    "too long with its answer": {"content": LONG, "max_tokens": 1020, "status": (400, "miss")},
    "a body that is too large": {"content": "word " * 1_000_000, "status": (413, "")},
    "an invalid field": {"temperature": 9, "status": (400, "")},
    "an unknown model": {"model": "none", "status": (404, "")},
    "an unknown key": {"key": "sk-none", "status": (401, "")},
    "an unknown path": {"path": "/v1/none", "status": (404, "")},
    "moderation": {"path": "/v1/moderations", "input": "hello", "status": (200, "")},
}
"""The fields of each request. ``leave`` is the number of messages of the response after which its client leaves;
``status`` has the status of the response and how the answer cache has answered, by default 200 and a miss."""


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[0.0, 1.0], ids=["no trace kept", "all traces kept"]
)
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    async with service(NOWHERE, sample_ratio=request.param) as started:
        yield started


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES)
async def test_a_request_leaves_no_garbage(running: Service, case: str) -> None:
    texts = map(str, count())
    await ask(running, case, texts)  # what is made once
    await asyncio.sleep(SETTLE_S)
    with garbage() as found:
        for _ in range(REQUESTS):
            assert await ask(running, case, texts) == CASES[case].get("status", (200, "miss"))
        await asyncio.sleep(SETTLE_S)
    assert found.total() < REQUESTS, found.most_common()


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """The types of the objects that become garbage in the context and would need the collector, with their numbers; in
    the counter when the context has ended."""
    found: Counter[str] = Counter()
    was_on, flags = gc.isenabled(), gc.get_debug()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        if was_on:
            gc.enable()


async def ask(running: Service, case: str, texts: Iterator[str]) -> tuple[int, str]:
    """Sends a request as ``case`` says, and reads the response. Returns its status, 0 without a response, and how the
    answer cache has answered, "" if it was not asked."""
    fields = {name: value for name, value in CASES[case].items() if name != "status"}
    key, path = fields.pop("key", KEY), fields.pop("path", "/v1/chat/completions")
    leave, content = fields.pop("leave", None), fields.pop("content", None)
    text = next(texts)
    headers = [(b"authorization", f"Bearer {key}".encode())]
    if fields.pop("idempotent", False):
        headers.append((b"idempotency-key", text.encode()))
    chat = {"model": "fast", "messages": [{"role": "user", "content": content or f"{case} {text}"}]}
    body = fields if "input" in fields else chat | {"temperature": 0, "max_tokens": 8} | fields
    unread = [json.dumps(body).encode()]
    gone, sent = asyncio.Event(), list[Message]()

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop()}
        if leave != 0:
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == leave:
            gone.set()
        await asyncio.sleep(0)

    scope = {"type": "http", "path": path, "method": "POST", "headers": headers, "query_string": b""}
    await running.app(scope, receive, send)
    if not sent:
        return 0, ""
    cache = dict(sent[0]["headers"]).get(b"x-manta-cache", b"").decode()
    return int(sent[0]["status"]), cache.partition(";")[0]
