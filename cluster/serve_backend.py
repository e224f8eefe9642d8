"""``ServeBackend``: the router's port ``TierBackend`` on Ray Serve.

One call of ``generate`` is one attempt: the pool of the tier picks a replica, and the request's deltas come through the
lane to it. What becomes of a failed attempt is decided by the router.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing

from cluster.config import PlacementConfig
from cluster.lanes.lane import ReplicaClient
from cluster.lanes.pool import LanePool
from cluster.lanes.replica_directory import ReplicaDirectory
from engine.api import Delta, GenerationRequest
from router.ports.tier_backend import TierDescription, TierSnapshot, TierUnavailableError


class ServeBackend:
    """Every tier, reached through Serve. Implements ``router.ports.tier_backend.TierBackend``.

    ``tiers`` are in order of ability, weakest first; ``clients`` reach the replicas of each, by the tier's name.
    """

    def __init__(
        self, tiers: Sequence[TierDescription], clients: Mapping[str, ReplicaClient], config: PlacementConfig
    ) -> None:
        self._tiers = tuple(tiers)
        self._clients = clients
        self._config = config
        self._pools: dict[str, LanePool] = {}  # empty before the start and after the end
        self._connecting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for tier in self._tiers:
            client = self._clients[tier.name]
            pool = self._pools[tier.name] = LanePool(tier.name, client, self._config)
            ReplicaDirectory.subscribe(tier.name, pool.replicas_changed)
            # In the background: it takes until a replica of the tier runs, and the router answers before that.
            task = asyncio.create_task(client.connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        for task in self._connecting:
            task.cancel()
        for name, pool in pools.items():
            ReplicaDirectory.unsubscribe(name, pool.replicas_changed)
        await asyncio.gather(*(pool.close() for pool in pools.values()))

    def tiers(self) -> Sequence[TierDescription]:
        return self._tiers

    def snapshot(self) -> Sequence[TierSnapshot]:
        pools = ((tier.name, self._pools.get(tier.name)) for tier in self._tiers)
        return [TierSnapshot(name) if pool is None else pool.snapshot() for name, pool in pools]

    async def generate(
        self, tier: str, request: GenerationRequest, avoid: Collection[str] = ()
    ) -> AsyncGenerator[Sequence[Delta], None]:
        pool = self._pools.get(tier)
        if pool is None:
            raise TierUnavailableError(f"The tier '{tier}' is not connected.")
        lane = await pool.acquire(request, avoid)
        async with aclosing(lane.generate(request)) as batches:
            async for deltas in batches:
                yield deltas
