"""A tier backend that streams written answers, cut into deltas at random, and an ASGI client in the same process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message

from engine.api import Conversation, Delta, FinishReason, GenerationRequest, Usage
from router.ports.tier_backend import OnOrphans, OnPlaced, OnUsage, TierDescription, TierSnapshot


@dataclass(slots=True)
class Script:
    """The answers to one request: the pieces of each choice. ``aborted``: the request was closed before its end."""

    choices: Sequence[Sequence[str]]
    begun_at: float = 0.0
    aborted: bool = False
    sent: int = 0


@dataclass(slots=True)
class ScriptedBackend:
    """Answers the prompt ``N`` with the script of that number. ``pace_s`` passes between two deltas of a choice."""

    scripts: Mapping[str, Script]
    pace_s: float
    names: Sequence[str] = field(default=("fast",))

    async def start(self, on_orphans: OnOrphans) -> None:
        """Has nothing to connect to."""

    async def close(self) -> None:
        """Has nothing to close."""

    def tiers(self) -> Sequence[TierDescription]:
        """The one tier."""
        return [TierDescription(name, f"{name}-model") for name in self.names]

    def snapshot(self) -> Sequence[TierSnapshot]:
        """The one tier, which is ready."""
        return [TierSnapshot(name, frozenset({name}), 100_000) for name in self.names]

    def model_version(self, tier: str, replica_id: str) -> str:
        """Not known."""
        return ""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        """Yields the deltas of all choices, one of each at a time."""
        prompt = request.prompt
        name = prompt.messages[-1].content if isinstance(prompt, Conversation) else str(prompt)
        script, request_id = self.scripts[name], request.request_id
        script.begun_at = time.perf_counter()
        script.aborted = True
        try:
            for step in range(max(map(len, script.choices))):
                await asyncio.sleep(self.pace_s)
                deltas = []
                for choice, pieces in enumerate(script.choices):
                    if step < len(pieces):
                        last = step == len(pieces) - 1
                        reason = FinishReason.STOP if last else None
                        deltas.append(Delta(request_id, (1,), pieces[step], reason, choice=choice))
                script.sent += len(deltas)
                if step == max(map(len, script.choices)) - 1:
                    deltas[-1].usage = Usage(1, script.sent, 0)
                    script.aborted, on_usage = False, None
                yield deltas
        finally:
            if on_usage is not None:
                on_usage(Usage(1, script.sent, 0))


@dataclass(frozen=True, slots=True)
class Received:
    """A response: its status, its body in the pieces that were sent, and when each was."""

    status: int
    pieces: Sequence[tuple[float, bytes]]

    @property
    def body(self) -> str:
        """The whole body."""
        return b"".join(piece for _, piece in self.pieces).decode()


async def post(app: ASGIApp, path: str, key: str, document: Mapping[str, Any]) -> Received:
    """Sends a request to ``app`` and returns the response. The client reads at once."""
    body = json.dumps(document).encode()
    requested, status, pieces = False, 0, []

    async def receive() -> Message:
        nonlocal requested
        if requested:
            await asyncio.Event().wait()
        requested = True
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            pieces.append((time.perf_counter(), message.get("body", b"")))

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return Received(status, pieces)


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """Starts ``app`` by ASGI's lifespan, and closes it."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    outgoing: asyncio.Queue[Message] = asyncio.Queue()

    async def serve() -> None:
        await app({"type": "lifespan"}, incoming.get, outgoing.put)

    serving = asyncio.create_task(serve())
    await incoming.put({"type": "lifespan.startup"})
    await outgoing.get()
    try:
        yield
    finally:
        await incoming.put({"type": "lifespan.shutdown"})
        await serving
