"""``ConcurrencyLimit``: the limit on the concurrent requests of one router replica, and the shares of tenants in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from router.errors import RateLimitError

KEPT_PARTS = 8
"""One part of this many of the places is kept for tenants that have fewer than others."""


class ConcurrencyLimit:
    """A counter of concurrent requests with an upper limit, for one event loop.

    ``active`` is the number of requests now. A tenant may have all places but the last eighth. Of these it gets one
    only while it has less than its share: an equal part for each tenant, and one for a tenant to come. So a tenant that
    fills a router with streams, or with bodies that arrive slowly, does not keep the others out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = limit // KEPT_PARTS
        self._of_tenant: Counter[str] = Counter()
        self.active = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts a request while the context is open. Raises RateLimitError if ``limit`` requests are active."""
        if self.active >= self._limit:
            raise _refused("The service is at its limit.", f"router_full; limit={self._limit}")
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    @contextmanager
    def share(self, tenant: str) -> Iterator[None]:
        """Counts a request that ``admit`` has counted as one of ``tenant`` while the context is open. Raises
        RateLimitError if few places are left and the tenant has its share."""
        if self.active > self._limit - self._kept:
            share = max(1, self._limit // (len(self._of_tenant) + 1))
            if self._of_tenant[tenant] >= share:
                message = "Your organization has too many requests at the same time for the present load."
                raise _refused(message, f"router_share; value={self._of_tenant[tenant]}; limit={share}")
        self._of_tenant[tenant] += 1
        try:
            yield
        finally:
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]


def _refused(message: str, reason: str) -> RateLimitError:
    refusal = RateLimitError(message, "overloaded", retry_after_s=1)
    refusal.refused = f"reason={reason}"
    return refusal
