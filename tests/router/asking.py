"""``Asking``: a client that asks a router with an answer cache, and may leave."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp

from tests.router.asgi_client import Client

BODY: dict[str, Any] = {
    "model": "fast",
    "temperature": 0,
    "messages": [{"role": "user", "content": "What is a quark?"}],
}


class Asking:
    """A request to ``app`` under way."""

    def __init__(self, app: ASGIApp, stream: bool = True, **more: Any) -> None:
        self.client = Client({**BODY, **more, "stream": stream})
        scope = {**self.client.scope(), "headers": [(b"authorization", b"Bearer sk-user")]}
        self.task = asyncio.ensure_future(app(scope, self.client.receive, self.client.send))

    async def leave(self) -> None:
        self.client.left.set()
        await asyncio.wait_for(self.task, timeout=5)

    async def answer(self) -> str:
        await asyncio.wait_for(self.task, timeout=5)
        return self.client.text

    @property
    def status(self) -> str:
        headers = dict(self.client.sent[0]["headers"])
        return str(headers[b"x-manta-cache"].decode())
