"""``MemoryStreamStore``: detached streams in the memory of one process, for one router without Redis and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import GONE_MS, StreamPart, StreamState, StreamTerms


@dataclass(slots=True)
class _Stream:
    """A stream. ``events`` None: they are deleted. ``due_ms``: when they will be, or when they were."""

    owner: str
    events: list[str] | None = field(default_factory=list)
    bytes: int = 0
    ended: bool = False
    lease_ends_ms: int = 0
    due_ms: int = 0
    read_ms: int | None = None


class MemoryStreamStore:
    """Implements ``StreamStore``. Methods do not wait, so each is atomic among the tasks of one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tenants: dict[str, dict[str, _Stream]] = {}
        self._closed = False

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    async def append(
        self,
        tenant: str,
        stream_id: str,
        owner: str,
        first: int,
        events: Sequence[str],
        terms: StreamTerms,
        *,
        ended: bool = False,
    ) -> int | None:
        streams, now = self._streams(tenant), self._now_ms()
        stream = streams.setdefault(stream_id, _Stream(owner))
        if stream.events is None:
            return None
        new = events[max(0, len(stream.events) - first + 1) :]
        stream.events.extend(new)
        stream.bytes += sum(len(event.encode()) for event in new)
        stream.ended = stream.ended or ended
        stream.lease_ends_ms = now + terms.lease_ms
        stream.due_ms = now + terms.window_ms + (0 if stream.ended else terms.lease_ms)
        self._make_room(streams, terms, now)
        if stream.events is None:
            return None
        return -1 if stream.read_ms is None else now - stream.read_ms

    async def read(self, tenant: str, stream_id: str, owner: str, after: int, count: int) -> StreamPart | None:
        stream, now = self._streams(tenant).get(stream_id), self._now_ms()
        if stream is None or stream.owner != owner:
            return None
        if stream.events is None:
            return StreamPart((), StreamState.GONE)
        stream.read_ms = now
        found = tuple(stream.events[after : after + count])
        if stream.ended:
            return StreamPart(found, StreamState.ENDED)
        return StreamPart(found, StreamState.OPEN if now < stream.lease_ends_ms else StreamState.LOST)

    def _streams(self, tenant: str) -> dict[str, _Stream]:
        """Returns the streams of a tenant, after the time of some has ended. Raises StateUnavailableError."""
        if self._closed:
            raise StateUnavailableError("the store is closed", sent=False)
        now, streams = self._now_ms(), self._tenants.setdefault(tenant, {})
        for stream_id, stream in list(streams.items()):
            if stream.events is not None and stream.due_ms <= now:
                _delete_events(stream, stream.due_ms)
            if stream.events is None and stream.due_ms + GONE_MS <= now:
                del streams[stream_id]
        return streams

    def _make_room(self, streams: dict[str, _Stream], terms: StreamTerms, now: int) -> None:
        kept = sorted((each for each in streams.values() if each.events is not None), key=lambda each: each.due_ms)
        total = sum(each.bytes for each in kept)
        while kept and (len(kept) > terms.max_streams or total > terms.max_bytes):
            total -= kept[0].bytes
            _delete_events(kept.pop(0), now)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _delete_events(stream: _Stream, at_ms: int) -> None:
    stream.events, stream.due_ms = None, at_ms
