"""``RecentlyAddedTenants``: remembers the tenants that this process has recently added to a set in Redis."""

from __future__ import annotations

from collections import OrderedDict

from router.ports.clock import Clock

KNOWN_S = 60.0
"""Seconds after which a tenant is added again: Redis may have lost its data, or have been replaced by an empty one."""
MAX_KNOWN = 10_000  # tenants; one that is forgotten is added again


class RecentlyAddedTenants:
    """The tenants that this process added to a set in Redis within the last KNOWN_S; at most MAX_KNOWN of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._added: OrderedDict[str, float] = OrderedDict()  # monotonic seconds, the oldest first

    def __contains__(self, tenant: str) -> bool:
        """Returns whether the tenant was added within the last KNOWN_S."""
        added = self._added.get(tenant)
        return added is not None and self._clock.monotonic() - added < KNOWN_S

    def add(self, tenant: str) -> None:
        """Records that the tenant was added now."""
        self._added[tenant] = self._clock.monotonic()
        self._added.move_to_end(tenant)
        if len(self._added) > MAX_KNOWN:
            self._added.popitem(last=False)
