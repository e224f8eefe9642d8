"""``EngineBackend``: a tier over a real engine in the router's process, with the load that a replica reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence

from engine import AsyncEngine, Engine
from engine.api import Delta, EngineDeadError, GenerationRequest, OverloadedError
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import (
    OnOrphans,
    OnPlaced,
    OnUsage,
    ReplicaLostError,
    ReplicaOverloadedError,
    TierDescription,
    TierSnapshot,
)

TIER, REPLICA = "fast", "engine"


class EngineBackend:
    """Implements ``TierBackend`` with one tier, TIER, of one replica: ``engine``, on a thread of its own.

    The counts of a request that is given up are not known: ``on_usage`` gets None.
    """

    def __init__(self, engine: Engine) -> None:
        self._deltas: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Delta]]] = {}
        self._engine = AsyncEngine(engine, self._on_step)

    async def start(self, on_orphans: OnOrphans) -> None:
        self._engine.start()

    async def close(self) -> None:
        self._engine.close()

    def tiers(self) -> Sequence[TierDescription]:
        return [TierDescription(TIER, "engine")]

    def snapshot(self) -> Sequence[TierSnapshot]:
        stats = self._engine.stats()
        load = ReplicaLoad.of(stats, self._engine.load())
        return [
            TierSnapshot(
                TIER,
                frozenset({REPLICA}),
                self._engine.model_info.context_length,
                running=stats.running,
                waiting=stats.waiting,
                wait_s=stats.wait_s,
                loads={REPLICA: load},
            )
        ]

    def model_version(self, tier: str, replica_id: str) -> str:
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
        deltas: asyncio.Queue[Delta] = asyncio.Queue()
        self._deltas[request.request_id] = asyncio.get_running_loop(), deltas
        ended = False
        try:
            await asyncio.to_thread(self._submit, request)
            while not ended:
                batch = [await deltas.get()]
                while not deltas.empty():
                    batch.append(deltas.get_nowait())
                ended = batch[-1].last
                yield batch
        finally:
            del self._deltas[request.request_id]
            if not ended:
                self._engine.abort([request.request_id])
                if on_usage is not None:
                    on_usage(None)

    def _submit(self, request: GenerationRequest) -> None:
        """Queues a request. Raises what a replica's refusal becomes in the router."""
        try:
            self._engine.submit(request)
        except OverloadedError as error:
            raise ReplicaOverloadedError(error.message, REPLICA, error.retry_after_s) from error
        except EngineDeadError as error:
            raise ReplicaLostError(str(error), REPLICA) from error

    def _on_step(self, deltas: Sequence[Delta]) -> None:
        """Takes the deltas of a step, on the engine's thread."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Delta]] = {}
        for delta in deltas:
            if (found := self._deltas.get(delta.request_id)) is not None:
                by_loop.setdefault(found[0], []).append(delta)
        for loop, arrived in by_loop.items():
            loop.call_soon_threadsafe(self._deliver, arrived)

    def _deliver(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if (found := self._deltas.get(delta.request_id)) is not None:
                found[1].put_nowait(delta)
