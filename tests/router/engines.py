"""A TierBackend over one real engine, without a cluster: for what only a model's own tokens can show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path

from engine import AsyncEngine, Engine
from engine.api import Delta, GenerationRequest
from router.ports.tier_backend import OnPlaced, OnUsage
from tests.router.backend import ReadyTiers


class EngineBackend(ReadyTiers):
    """Every tier is the same engine. ``pause_s`` is what it waits after each step, in seconds."""

    def __init__(self, model: Path) -> None:
        self.pause_s = 0.0
        self._queues: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Delta]]] = {}
        self._settling: dict[str, tuple[asyncio.AbstractEventLoop, OnUsage]] = {}
        self.engine = AsyncEngine(Engine.from_pretrained(model, dtype="float32", threads=1), self._on_step)
        self.engine.start()

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        queue: asyncio.Queue[Delta] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._queues[request.request_id] = loop, queue
        submitted = False
        try:
            await loop.run_in_executor(None, self.engine.submit, request)
            submitted = True
            while True:
                delta = await queue.get()
                yield [delta]
                if delta.last:
                    on_usage = None
                    return
        finally:
            del self._queues[request.request_id]
            # A request that the engine has refused has no end, and may come again under its id, with a shorter prompt.
            if submitted and on_usage is not None:
                self._settling[request.request_id] = loop, on_usage
            self.engine.abort([request.request_id])

    def stop(self) -> None:
        self.engine.close()

    def _on_step(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if delta.last and (settling := self._settling.pop(delta.request_id, None)) is not None:
                settling[0].call_soon_threadsafe(settling[1], delta.usage)
            elif found := self._queues.get(delta.request_id):
                loop, queue = found
                loop.call_soon_threadsafe(queue.put_nowait, delta)
        time.sleep(self.pause_s)
