"""``WaitingRoomReporter``: tells the autoscaler, through Ray's key-value store, what waits at this router for a tier at
zero."""

from __future__ import annotations

import asyncio
import logging

from ray.exceptions import RayError, RpcError

from cluster.autoscaling.snapshot import WaitingRoom
from cluster.autoscaling.waiting_room_store import WaitingRoomStore

logger = logging.getLogger(__name__)


class WaitingRoomReporter:
    """Reports the waiting room of ``tier`` at the router with the id ``router`` to the autoscaler, through
    ``store``."""

    def __init__(self, store: WaitingRoomStore, tier: str, router: str) -> None:
        self._store = store
        self._tier = tier
        self._router = router
        self._number = 0
        self._failing = False

    async def report(self, room: WaitingRoom) -> None:
        """Stores a report on ``room``. If Ray's store fails, raises nothing: the first failure in a row is logged, and
        the next report follows soon."""
        self._number += 1
        try:
            await asyncio.to_thread(self._store.write, self._tier, self._router, room, self._number)
        except (RayError, RpcError, OSError) as error:
            if not self._failing:
                logger.warning("the tier %s may not start: Ray's store fails: %s", self._tier, type(error).__name__)
            self._failing = True
            return
        self._failing = False
