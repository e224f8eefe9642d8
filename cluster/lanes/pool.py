"""The lanes of one tier: one per running replica, opened and drained as Serve reports replicas coming and going."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from cluster.config import PlacementConfig
from cluster.lanes.lane import Lane, LaneState, ReplicaCalls
from cluster.lanes.placement import Candidate, place
from cluster.lanes.prefix_affinity import PrefixMemory, fingerprint
from engine.api import GenerationRequest
from router.ports.tiers import TierStatus, TierUnavailableError

logger = logging.getLogger(__name__)

REOPEN_DELAY_S = 0.25  # between the loss of a lane and the next try, while Serve still lists the replica


class LanePool:
    """The lanes of the tier ``name``. Everything runs on the event loop that made it."""

    def __init__(self, name: str, calls: ReplicaCalls, config: PlacementConfig) -> None:
        self.name = name
        self._calls = calls
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, Lane] = {}  # by replica id; the lane in use
        self._draining: set[Lane] = set()
        self._prefixes: dict[str, PrefixMemory] = {}
        self._listed: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._model = ""
        self._context_length = 0

    def replicas_changed(self, replica_ids: Iterable[str]) -> None:
        """The replicas that run now. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._sync, frozenset(replica_ids))

    def status(self) -> TierStatus:
        """The tier as the router sees it."""
        ready = sum(lane.state is LaneState.READY for lane in self._lanes.values())
        return TierStatus(self.name, self._model or self.name, self._context_length, ready > 0, ready)

    async def acquire(self, request: GenerationRequest, *, avoid: Lane | None = None) -> Lane:
        """The lane whose replica should run ``request``; not ``avoid``, which has just lost it.

        Waits while the tier has no ready replica; raises TierUnavailableError after ``placement.wait_s``.
        """
        chain = fingerprint(request)
        try:
            async with asyncio.timeout(self._config.wait_s):
                while (lane := self._choose(request, chain, avoid)) is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TierUnavailableError(f"No replica of the tier '{self.name}' is ready.") from None
        self._prefixes[lane.replica_id].remember(chain)
        return lane

    async def close(self) -> None:
        """Close every lane at once."""
        self._listed = frozenset()
        await asyncio.gather(*(lane.close() for lane in [*self._lanes.values(), *self._draining]))

    def _choose(self, request: GenerationRequest, chain: tuple[int, ...], avoid: Lane | None) -> Lane | None:
        candidates = [
            Candidate(
                replica_id,
                lane.outstanding,
                self._prefixes[replica_id].matched(chain),
                lane.load.blocks_used / max(lane.load.blocks_total, 1),
            )
            for replica_id, lane in self._lanes.items()
            if lane.state is LaneState.READY and lane is not avoid
        ]
        chosen = place(candidates, request.request_id, self._config.affinity_weight)
        return None if chosen is None else self._lanes[chosen]

    def _sync(self, listed: frozenset[str]) -> None:
        self._listed = listed
        for replica_id in self._lanes.keys() - listed:
            lane = self._lanes.pop(replica_id)
            self._draining.add(lane)
            del self._prefixes[replica_id]
            lane.drain()
        for replica_id in listed - self._lanes.keys():
            self._open(replica_id)

    def _open(self, replica_id: str) -> None:
        if replica_id not in self._listed or replica_id in self._lanes:
            return  # gone meanwhile, or opened anew by a change of the list before the delay was over
        lane = Lane(
            self._calls, replica_id, buffer_limit=self._config.reader_buffer_tokens, on_change=self._on_lane_change
        )
        self._lanes[replica_id] = lane
        self._prefixes[replica_id] = PrefixMemory()
        lane.start()

    def _on_lane_change(self) -> None:
        self._draining = {lane for lane in self._draining if lane.state is not LaneState.CLOSED}
        for replica_id, lane in list(self._lanes.items()):
            if lane.state is LaneState.CLOSED:
                logger.warning("%r was lost; opening another", lane)
                del self._lanes[replica_id], self._prefixes[replica_id]
                self._loop.call_later(REOPEN_DELAY_S, self._open, replica_id)
            elif lane.model is not None:
                self._model = lane.model.name
                self._context_length = lane.model.context_length
        self._changed.set()
