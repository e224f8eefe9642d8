"""``Client``: the far end of an ASGI application."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import Message, Scope

from tests.router.served import KEY


class Client:
    """The far end of an ASGI application, which stops reading after ``reads`` messages and never leaves by itself."""

    def __init__(self, body: dict[str, Any], reads: int = 1000) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self._reads = reads
        self._body = json.dumps(body).encode()

    async def receive(self) -> Message:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if len(self.sent) >= self._reads:
            await asyncio.Event().wait()
        self.sent.append(message)

    def scope(self, path: str = "/v1/chat/completions", method: str = "POST") -> Scope:
        headers = [(b"authorization", f"Bearer {KEY}".encode())]
        return {"type": "http", "path": path, "method": method, "headers": headers}

    @property
    def text(self) -> str:
        """All of the body so far."""
        return b"".join(message.get("body", b"") for message in self.sent).decode()
