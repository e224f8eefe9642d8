"""``EngineBackend``: a tier in the router's own process over a real engine, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence

from engine import AsyncEngine, Engine
from engine.api import Delta, GenerationRequest
from router.ports.tier_backend import OnOrphans, OnUsage, TierDescription, TierSnapshot

CONTEXT = 1024  # tokens


class EngineBackend:
    """Implements ``TierBackend`` with one tier, ``fast``: the model in the directory ``model``, on one thread.

    A request that is given up is aborted, and its counts are not known: ``on_usage`` gets None.
    """

    def __init__(self, model: str) -> None:
        self._deltas: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Delta]]] = {}
        self._engine = AsyncEngine(Engine.from_pretrained(model, dtype="float32", threads=1), self._on_step)

    async def start(self, on_orphans: OnOrphans) -> None:
        self._engine.start()

    async def close(self) -> None:
        self._engine.close()

    def tiers(self) -> Sequence[TierDescription]:
        return [TierDescription("fast", "engine")]

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [TierSnapshot("fast", frozenset({"engine"}), CONTEXT)]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
    ) -> AsyncGenerator[Sequence[Delta], None]:
        deltas: asyncio.Queue[Delta] = asyncio.Queue()
        self._deltas[request.request_id] = asyncio.get_running_loop(), deltas
        ended = False
        try:
            await asyncio.to_thread(self._engine.submit, request)
            while not ended:
                delta = await deltas.get()
                ended = delta.last
                yield [delta]
        finally:
            del self._deltas[request.request_id]
            if not ended:
                self._engine.abort([request.request_id])
                if on_usage is not None:
                    on_usage(None)

    def _on_step(self, deltas: Sequence[Delta]) -> None:
        """Takes the deltas of a step, on the engine's thread."""
        for delta in deltas:
            if (found := self._deltas.get(delta.request_id)) is not None:
                found[0].call_soon_threadsafe(found[1].put_nowait, delta)
