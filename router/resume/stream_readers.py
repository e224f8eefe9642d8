"""``StreamReaders``: bounds how many clients of a router read detached streams, and how often they look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from router.errors import ConflictError, RateLimitError
from router.ports.stream_store import StreamOwner

MAX_READERS = 4
"""Of one stream. A client that has lost a connection opens the next one before the router knows, so the newest stay."""
POLL_S = 0.1
"""The least seconds between two looks of a reader for new events."""
TENANT_POLLS_PER_S = 500.0
"""Looks per second of all readers of a tenant: more than 50 readers of a tenant look less often."""
ROUTER_POLLS_PER_S = 2000.0
"""Looks per second of all readers of a router."""
RETRY_AFTER_S = 1.0
Stream = tuple[StreamOwner, str]


class StreamReaders:
    """Counts the readers of one router, for one event loop. A stream has the MAX_READERS newest; older ones are ended.
    A tenant has as many as it may have streams, ``max_streams``, among them those that are ended and have not left yet.
    Readers beyond that would only keep other requests out of the router."""

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._of_stream: dict[Stream, list[object]] = {}  # the newest last
        self._of_tenant: Counter[str] = Counter()

    @contextmanager
    def admit(self, owner: StreamOwner, stream_id: str) -> Iterator[Callable[[], float]]:
        """Counts a reader while the context is open. Yields a function that returns the seconds until the reader may
        look again, and raises ConflictError once MAX_READERS newer ones read the stream. Raises RateLimitError if
        the tenant has as many readers as it may have."""
        stream, tenant, place = (owner, stream_id), owner.tenant, object()
        if self._of_tenant[tenant] >= self._max_streams:
            message = f"Your organization reads {self._max_streams} streams already."
            raise RateLimitError(message, "too_many_readers", retry_after_s=RETRY_AFTER_S)
        places = self._of_stream.setdefault(stream, [])
        places.append(place)
        del places[:-MAX_READERS]
        self._of_tenant[tenant] += 1

        def pause_s() -> float:
            if place not in self._of_stream.get(stream, ()):
                raise ConflictError(f"{MAX_READERS} newer connections read this stream.", "stream_read_elsewhere")
            return poll_interval_s(self._of_tenant[tenant], self._of_tenant.total())

        try:
            yield pause_s
        finally:
            self._leave(stream, place)

    def _leave(self, stream: Stream, place: object) -> None:
        left = [each for each in self._of_stream.pop(stream, ()) if each is not place]
        if left:
            self._of_stream[stream] = left
        tenant = stream[0].tenant
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]


def poll_interval_s(of_tenant: int, of_router: int) -> float:
    """Returns the seconds between two looks of a reader, by the numbers of readers of its tenant and of its router."""
    return max(POLL_S, of_tenant / TENANT_POLLS_PER_S, of_router / ROUTER_POLLS_PER_S)
