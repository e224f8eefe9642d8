"""A client that leaves when an event is set, and a reviewer who never decides."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from safety.api import ReviewOutcome
from tests.router.served import KEY
from tests.safety.guards import People


class SlowPeople(People):
    """A reviewer who never decides. ``asked`` is set when a request waits for the decision."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def decision(self, tenant: str, item_id: str, timeout_s: float) -> ReviewOutcome:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing sets the event")


async def post(app: Any, path: str, body: Any, leaves: asyncio.Event | None = None) -> list[dict[str, Any]]:
    """Posts ``body`` as JSON, as by ``ask``."""
    return await ask(app, "POST", path, json.dumps(body).encode(), leaves)


async def ask(
    app: Any, method: str, path: str, body: bytes = b"", leaves: asyncio.Event | None = None
) -> list[dict[str, Any]]:
    """Sends a request to an ASGI app, and returns the messages that come back. The client leaves when ``leaves`` is
    set; None: it stays."""
    messages = iter([{"type": "http.request", "body": body}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if (message := next(messages, None)) is not None:
            return message
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return sent
