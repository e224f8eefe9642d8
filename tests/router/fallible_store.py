"""``FallibleStore``: shared state that fails on demand."""

from __future__ import annotations

import asyncio

from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.limit_store import Charge, LimitDecision, Reservation
from router.ports.state_store import StateUnavailableError


class FallibleStore(MemoryStore):
    """The store in memory, which can be out of reach."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.down = False
        self.late = False  # what is reserved is answered too late
        self.stuck = False  # settlements do not end

    async def reserve(self, reservation: Reservation, lease_ms: int) -> LimitDecision:
        decision = await super().reserve(reservation, lease_ms)
        if self.late:
            raise StateUnavailableError("late")
        return decision

    async def settle(self, tenant: str, reservation_id: str, used: Charge) -> bool:
        if self.stuck:
            await asyncio.sleep(60)
        return await super().settle(tenant, reservation_id, used)

    def _check_open(self) -> None:
        super()._check_open()
        if self.down:
            raise StateUnavailableError("down")
