"""``MemoryStreamStore``: detached streams in the memory of one process, for one router without Redis and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.expiry_timer import ExpiryTimer
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import GONE_MS, MAX_GONE, StreamPart, StreamState, StreamTerms


@dataclass(slots=True)
class _Stream:
    """A stream with its events. ``due_ms``: when they are deleted."""

    owner: str
    events: list[str] = field(default_factory=list)
    bytes: int = 0
    ended: bool = False
    lease_ends_ms: int = 0
    due_ms: int = 0
    read_ms: int | None = None


@dataclass(slots=True)
class _Gone:
    """A stream whose events were deleted at ``at_ms``."""

    owner: str
    at_ms: int


@dataclass(slots=True)
class _Tenant:
    """The streams of a tenant by their ids. ``gone`` has those first that have been gone for longest."""

    streams: dict[str, _Stream] = field(default_factory=dict)
    gone: dict[str, _Gone] = field(default_factory=dict)

    def expire(self, now: int) -> None:
        """Deletes the events of streams whose time has ended, and forgets what has been gone for long."""
        for stream_id in [each for each, stream in self.streams.items() if stream.due_ms <= now]:
            self.delete_events(stream_id, self.streams[stream_id].due_ms)
        while self.gone and next(iter(self.gone.values())).at_ms + GONE_MS <= now:
            self._forget_first()

    def make_room(self, terms: StreamTerms, now: int) -> None:
        """Deletes the events of the streams whose time ends first until the others are within the bounds."""
        total = sum(stream.bytes for stream in self.streams.values())
        while self.streams and (len(self.streams) > terms.max_streams or total > terms.max_bytes):
            first = min(self.streams, key=lambda each: self.streams[each].due_ms)
            total -= self.streams[first].bytes
            self.delete_events(first, now)

    def delete_events(self, stream_id: str, at_ms: int) -> None:
        self.gone[stream_id] = _Gone(self.streams.pop(stream_id).owner, at_ms)
        if len(self.gone) > MAX_GONE:
            self._forget_first()

    def _forget_first(self) -> None:
        del self.gone[next(iter(self.gone))]


class MemoryStreamStore:
    """Implements ``StreamStore``. Methods do not wait, so each is atomic among the tasks of one event loop. A timer
    deletes the events of a tenant that makes no more calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._closed = False
        self._timer = ExpiryTimer(self._expire)

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        self._timer.cancel()

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
        kept, now = self._tenant(tenant), self._now_ms()
        if stream_id in kept.gone:
            return None
        stream = kept.streams.setdefault(stream_id, _Stream(owner))
        if len(stream.events) < first - 1:
            kept.delete_events(stream_id, now)
            return None
        new = events[max(0, len(stream.events) - first + 1) :]
        stream.events.extend(new)
        stream.bytes += sum(len(event.encode()) for event in new)
        stream.ended = stream.ended or ended
        stream.lease_ends_ms = now + terms.lease_ms
        stream.due_ms = now + terms.window_ms + (0 if stream.ended else terms.lease_ms)
        kept.make_room(terms, now)
        if stream_id in kept.gone:
            return None
        return -1 if stream.read_ms is None else now - stream.read_ms

    async def read(self, tenant: str, stream_id: str, owner: str, after: int, count: int) -> StreamPart | None:
        kept, now = self._tenant(tenant), self._now_ms()
        found = kept.streams.get(stream_id) or kept.gone.get(stream_id)
        if found is None or found.owner != owner:
            return None
        if isinstance(found, _Gone):
            return StreamPart((), StreamState.GONE)
        found.read_ms = now
        events = tuple(found.events[after : after + count])
        if found.ended:
            return StreamPart(events, StreamState.ENDED)
        return StreamPart(events, StreamState.OPEN if now < found.lease_ends_ms else StreamState.LOST)

    def _tenant(self, tenant: str) -> _Tenant:
        """Returns the streams of a tenant, after the time of some has ended. Raises StateUnavailableError."""
        if self._closed:
            raise StateUnavailableError("the store is closed", sent=False)
        kept = self._tenants.setdefault(tenant, _Tenant())
        kept.expire(self._now_ms())
        self._timer.arm()
        return kept

    def _expire(self) -> bool:
        """Deletes what is over of all tenants, and forgets tenants without streams. Returns whether some are left."""
        for name, kept in list(self._tenants.items()):
            kept.expire(self._now_ms())
            if not kept.streams and not kept.gone:
                del self._tenants[name]
        return bool(self._tenants)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
