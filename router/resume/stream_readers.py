"""``StreamReaders``: bounds how many clients of a router read detached streams, and how often they look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from router.errors import RateLimitError
from router.ports.stream_store import StreamOwner

MAX_READERS = 4
"""Of one stream. A client that has lost several connections in a row may not be known to have left the earlier ones."""
POLL_S = 0.1
"""The least seconds between two looks of a reader for new events."""
TENANT_POLLS_PER_S = 500.0
"""Looks per second of all readers of a tenant: more than 50 readers of a tenant look less often."""
ROUTER_POLLS_PER_S = 2000.0
"""Looks per second of all readers of a router."""
RETRY_AFTER_S = 1.0


class StreamReaders:
    """Counts the readers of one router, for one event loop. A stream has at most MAX_READERS, and a tenant as many as
    it may have streams, ``max_streams``. Readers beyond that would only keep other requests out of the router."""

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._of_stream: Counter[tuple[StreamOwner, str]] = Counter()
        self._of_tenant: Counter[str] = Counter()

    @contextmanager
    def admit(self, owner: StreamOwner, stream_id: str) -> Iterator[Callable[[], float]]:
        """Counts a reader while the context is open. Yields a function that returns the seconds until the reader may
        look again. Raises RateLimitError if the stream, or the tenant, has as many readers as it may have."""
        stream, tenant = (owner, stream_id), owner.tenant
        if self._of_stream[stream] >= MAX_READERS:
            raise _too_many(f"This stream has {MAX_READERS} readers already.")
        if self._of_tenant[tenant] >= self._max_streams:
            raise _too_many(f"Your organization reads {self._max_streams} streams already.")
        self._of_stream[stream] += 1
        self._of_tenant[tenant] += 1
        try:
            yield lambda: poll_interval_s(self._of_tenant[tenant], self._of_tenant.total())
        finally:
            _subtract(self._of_stream, stream)
            _subtract(self._of_tenant, tenant)


def poll_interval_s(of_tenant: int, of_router: int) -> float:
    """Returns the seconds between two looks of a reader, by the numbers of readers of its tenant and of its router."""
    return max(POLL_S, of_tenant / TENANT_POLLS_PER_S, of_router / ROUTER_POLLS_PER_S)


def _subtract(counts: Counter[Any], key: Hashable) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _too_many(message: str) -> RateLimitError:
    return RateLimitError(message, "too_many_readers", retry_after_s=RETRY_AFTER_S)
