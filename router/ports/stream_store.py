"""``StreamStore``: the port to the events of detached streams, which all routers share, so that a client that has lost
its connection gets the rest from any of them.

``cluster.state`` implements it with Redis, ``router.memory_stream_store`` in the memory of one process. One suite of
contract tests runs both. A stream belongs to one tenant and, within it, to one owner: the API key that asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

GONE_MS = 3_600_000
"""Milliseconds for which a stream is known to have existed after its events are deleted."""
MAX_GONE = 4096
"""The most such streams of a tenant. The one that has been gone for longest is forgotten, as if it had never been."""


@dataclass(frozen=True, slots=True)
class StreamTerms:
    """How long and how much is kept.

    ``lease_ms``: after an ``append``, the time within which the next one must come; else the router of the stream
    counts as lost. ``window_ms``: how long events are kept after the end of a stream, or after the loss of its router.
    ``max_streams`` and ``max_bytes``: the most that one tenant may have kept; the stream whose time ends first makes
    room.
    """

    lease_ms: int
    window_ms: int
    max_streams: int
    max_bytes: int


class StreamOwner(NamedTuple):
    """Who may read a stream. ``key_id`` is the id of the API key, or the subject of the token."""

    tenant: str
    key_id: str


class StreamState(StrEnum):
    """The state of a stream."""

    OPEN = "open"  # more events may come
    ENDED = "ended"  # its last event is there
    LOST = "lost"  # its router has died: no more events will come
    GONE = "gone"  # its events are deleted


class StreamPart(NamedTuple):
    """Events of a stream, in order, and its state when they were read. With ENDED and LOST, more events may follow
    those of a full part."""

    events: Sequence[str]
    state: StreamState


class StreamStore(Protocol):
    """The events of detached streams. Each coroutine raises StateUnavailableError if the store cannot be reached."""

    async def start(self) -> None:
        """Prepares for calls. Called once, on the event loop of all other calls. Does not fail if the store is down."""
        ...

    async def close(self) -> None:
        """Closes all connections. Further calls raise StateUnavailableError."""
        ...

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
        """Adds ``events``, the first of which has the number ``first`` (from 1), and renews the lease. The first call
        creates the stream, which belongs to ``owner``: a ``StreamOwner.key_id`` of ``tenant``. Events that are there
        already are not added again, so a call may be repeated.

        ``ended``: these are the last events. Returns the milliseconds since the last ``read``, -1 if there was none;
        None if the stream is gone, and nothing is added. A stream of which the store has lost events is gone.
        """
        ...

    async def read(self, tenant: str, stream_id: str, owner: str, after: int, count: int) -> StreamPart | None:
        """Returns at most ``count`` events after the one with the number ``after``; None if ``owner`` has no such
        stream."""
        ...
