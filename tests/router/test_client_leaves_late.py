"""A client that leaves while its answer, which is complete, is written."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from engine.api import Usage
from router.app_factory import build_app
from router.complete_answer import Answer
from router.openai.completions_writer import CompletionWriter
from router.routes import whole_bodies
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, KEY

BODY = json.dumps({"model": "fast", "prompt": "Hi", "logprobs": 1}).encode()


class Client:
    """Sends one request with an idempotency key. ``left`` is set when it leaves, ``sent`` is what it was sent."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.sent: list[Any] = []
        self._asks: list[dict[str, Any]] = [{"type": "http.request", "body": BODY}]

    async def ask(self, app: Any) -> None:
        headers = [(b"authorization", b"Bearer " + KEY.encode()), (b"idempotency-key", b"k")]
        scope = {"type": "http", "path": "/v1/completions", "method": "POST", "headers": headers}
        await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._asks:
            return self._asks.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def test_its_answer_is_kept_for_the_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was paid for, and its idempotency key would stay taken."""
    backend = ScriptedBackend()
    app = build_app(CONFIG, backend)
    first, retry = Client(), Client()
    loop, goes_on = asyncio.get_running_loop(), threading.Event()
    write = CompletionWriter.whole

    def whole(writer: CompletionWriter, answers: Sequence[Answer], usage: Usage) -> str:
        loop.call_soon_threadsafe(first.left.set)
        assert goes_on.wait(10)
        return write(writer, answers, usage)

    monkeypatch.setattr(whole_bodies, "MIN_SCORED_TOKENS", 1)
    monkeypatch.setattr(CompletionWriter, "whole", whole)
    asking = asyncio.create_task(first.ask(app))
    await asyncio.wait_for(first.left.wait(), 10)
    await asyncio.sleep(0.05)  # it is cancelled meanwhile
    goes_on.set()
    await asking
    await retry.ask(app)

    assert not first.sent
    assert (retry.sent[0]["status"], len(backend.requests)) == (200, 1)
    assert (b"idempotent-replayed", b"true") in retry.sent[0]["headers"]
