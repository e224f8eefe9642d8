"""``ServeBackend``: implements the router's port ``TierBackend`` with Ray Serve handles and lanes.

One call of ``generate`` is one attempt: the tier's ``LanePool`` chooses a replica, and the request's deltas arrive
through the lane to it. The router decides what to do after a failed attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from cluster.config import PlacementConfig
from cluster.lanes.cold_start_room import ColdStartRoom
from cluster.lanes.lane_pool import LanePool
from cluster.lanes.reader_wakeups import ReaderWakeups
from cluster.lanes.replica_client import ReplicaClient
from cluster.lanes.replica_directory import ReplicaDirectory
from engine.api import Delta, GenerationRequest, Usage
from router.ports.tier_backend import OnOrphans, OnPlaced, OnUsage, TierDescription, TierSnapshot, TierUnavailableError


class ServeBackend:
    """The tiers of a Serve application, with a pool of lanes for each. Implements ``TierBackend``.

    ``tiers`` are in order of ability, weakest first. ``clients`` call the replicas of each tier, by tier name.
    ``on_first_token`` takes the tier, the predicted and the measured TTFT of each request, in seconds.
    ``rooms`` are where requests wait for tiers that may be at zero replicas, by tier name.
    """

    def __init__(
        self,
        tiers: Sequence[TierDescription],
        clients: Mapping[str, ReplicaClient],
        config: PlacementConfig,
        on_first_token: Callable[[str, float, float], None] = lambda _, __, ___: None,
        rooms: Mapping[str, ColdStartRoom] | None = None,
    ) -> None:
        self._on_first_token = on_first_token
        self._rooms = rooms or {}
        self._tiers = tuple(tiers)
        self._clients = clients
        self._config = config
        self._pools: dict[str, LanePool] = {}  # by tier name; empty before ``start`` and after ``close``
        self._connecting: set[asyncio.Task[None]] = set()

    async def start(self, on_orphans: OnOrphans) -> None:
        wakeups = ReaderWakeups()
        for tier in self._tiers:
            client = self._clients[tier.name]
            pool = self._pools[tier.name] = LanePool(
                tier.name,
                client,
                self._config,
                on_orphans,
                tier.drain_timeout_s,
                partial(self._on_first_token, tier.name),
                self._rooms.get(tier.name),
                wakeups,
            )
            ReplicaDirectory.subscribe(tier.name, pool.replicas_changed)
            # In the background, since it returns only once a replica of the tier runs. The router serves before that.
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

    def set_warm(self, warm: Mapping[str, frozenset[str]]) -> None:
        """Takes over the ids of the replicas of the warm pools, by tier. A tier that is not in ``warm`` has none."""
        for name, pool in self._pools.items():
            pool.set_warm(warm.get(name, frozenset()))

    def tiers(self) -> Sequence[TierDescription]:
        return self._tiers

    def snapshot(self) -> Sequence[TierSnapshot]:
        pools = ((tier.name, self._pools.get(tier.name)) for tier in self._tiers)
        return [TierSnapshot(name) if pool is None else pool.snapshot() for name, pool in pools]

    def model_version(self, tier: str, replica_id: str) -> str:
        pool = self._pools.get(tier)
        return "" if pool is None else pool.model_version(replica_id)

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        pool = self._pools.get(tier)
        if pool is None:
            raise TierUnavailableError(f"The tier '{tier}' is not connected.")
        asked_at = asyncio.get_running_loop().time()
        try:
            lane = await pool.acquire(request, avoid)
        except asyncio.CancelledError:
            if on_usage is not None:
                on_usage(Usage(0, 0, 0))  # no engine has the request
            raise
        if on_placed is not None:
            on_placed(lane.replica_id, lane.placed.uncached(request.request_id))
        request = request.after(asyncio.get_running_loop().time() - asked_at)
        async with aclosing(lane.generate(request, on_usage, account)) as batches:
            async for deltas in batches:
                yield deltas
