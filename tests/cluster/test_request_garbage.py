"""A request leaves nothing that only Python's garbage collector would find, except where replicas are lost.

With hundreds of streams a collection walks a hundred thousand objects, and the event loop stands still meanwhile.
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
MOST = 2
"""Objects for each request: the engine's array types of ctypes are 1.5. A request that stays has from 15 to 200."""
SETTLE_S = 0.2  # for what ends a moment after the response
LEAVES = 2
"""The messages of the response after which a client that leaves is gone."""

CASES: Mapping[str, Mapping[str, Any]] = {
    "whole": {},
    "streamed": {"stream": True},
    "several choices": {"stream": True, "n": 3, "seed": 1},
    "idempotent": {"idempotent": True},
    "a cache hit": {"content": "the same"},
    "left by its client": {"stream": True, "ignore_eos": True, "max_tokens": 400, "leave": True},
    "refused by the guard": {"content": "HARM"},
    "too long": {"content": "word " * 5000},
    "an invalid field": {"temperature": 9},
    "an unknown model": {"model": "none"},
    "an unknown key": {"key": "sk-none"},
    "an unknown path": {"path": "/v1/none"},
    "moderation": {"path": "/v1/moderations", "input": "hello"},
}
STATUS = {
    "refused by the guard": 400,
    "too long": 400,
    "an invalid field": 400,
    "an unknown model": 404,
    "an unknown key": 401,
    "an unknown path": 404,
}


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
            assert await ask(running, case, texts) == STATUS.get(case, 200)
        await asyncio.sleep(SETTLE_S)
    assert found.total() < MOST * REQUESTS, found.most_common()


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """The types of the objects that become garbage in the context and would need the collector, with their numbers; in
    the counter when the context has ended."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def ask(running: Service, case: str, texts: Iterator[str]) -> int:
    """Sends a request as ``case`` says, and reads the response. Returns its status."""
    fields = dict(CASES[case])
    key, path = fields.pop("key", KEY), fields.pop("path", "/v1/chat/completions")
    leave, content = fields.pop("leave", False), fields.pop("content", None)
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
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if leave and len(sent) == LEAVES:
            gone.set()
        await asyncio.sleep(0)

    scope = {"type": "http", "path": path, "method": "POST", "headers": headers, "query_string": b""}
    await running.app(scope, receive, send)
    return int(sent[0]["status"])
