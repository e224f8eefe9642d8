"""``ConcurrencyLimit``: the limit on the concurrent requests of one router replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from router.errors import RateLimitError


class ConcurrencyLimit:
    """A counter of concurrent requests with an upper limit, for one event loop.

    ``active`` is the number of requests now.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.active = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts a request while the context is open. Raises RateLimitError if ``limit`` requests are active."""
        if self.active >= self._limit:
            raise _full(self._limit)
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


def _full(limit: int) -> RateLimitError:
    refusal = RateLimitError("The service is at its limit.", "overloaded", retry_after_s=1)
    refusal.refused = f"reason=router_full; limit={limit}"
    return refusal
