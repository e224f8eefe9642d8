"""``SearchTurns``: limits the searches that run at once. Tenants take turns, so that many searches of one do not keep
those of others waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SearchTurns:
    """At most ``at_once`` searches run at once. Of those that wait, each tenant's first one is next in turn."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the tenant that is next first

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Waits until a search of ``tenant`` may run. It runs while the context is open."""
        await self._enter(tenant)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, tenant: str) -> None:
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was its turn in the same breath
                self._leave()
            raise

    def _leave(self) -> None:
        """Gives a turn back. The next search that waits gets it; those that were cancelled are passed over."""
        self._free += 1
        while self._free and self._waiting:
            tenant, places = next(iter(self._waiting.items()))
            place = places.popleft()
            self._waiting.move_to_end(tenant)
            if not places:
                del self._waiting[tenant]
            if not place.done():
                place.set_result(None)
                self._free -= 1
