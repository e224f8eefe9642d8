"""How many requests a router serves at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from router.errors import RateLimitError


class ConcurrencyLimit:
    """At most ``limit`` requests at the same time, on one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.active = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place. Raises RateLimitError when all are taken."""
        if self.active >= self._limit:
            raise RateLimitError("The service is at its limit.", "overloaded", retry_after_s=1)
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
