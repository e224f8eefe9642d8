"""``read_stream``: the rest of a detached stream for a client that resumes it, from whichever router wrote it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from router.errors import GoneError, NotFoundError, UnavailableError
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import StreamOwner, StreamPart, StreamState, StreamStore

MAX_EVENTS = 1000  # of one read


async def read_stream(
    store: StreamStore, owner: StreamOwner, stream_id: str, after: int, pause_s: Callable[[], float]
) -> AsyncGenerator[tuple[int, Sequence[str]], None]:
    """Yields the events after the one with the number ``after``, as they come, until the last: the number of the first
    and their bodies. The first part may have no events. ``pause_s`` returns the seconds until the next look for new
    events, or raises what ends the reading.

    Raises NotFoundError if ``owner`` has no such stream, GoneError if its events are deleted, and UnavailableError if
    the store cannot be reached, or the router that wrote the stream has died.
    """
    first = True
    while True:
        events, state = await _part(store, owner, stream_id, after)
        if events or first:
            yield after + 1, events
        first, after = False, after + len(events)
        if len(events) == MAX_EVENTS:
            continue
        if state is StreamState.ENDED:
            return
        if state is StreamState.LOST:
            message = "The router that ran this request was lost. The answer will not be continued."
            raise UnavailableError(message, "stream_lost")
        await asyncio.sleep(pause_s())


async def _part(store: StreamStore, owner: StreamOwner, stream_id: str, after: int) -> StreamPart:
    try:
        part = await store.read(owner.tenant, stream_id, owner.key_id, after, MAX_EVENTS)
    except StateUnavailableError:
        message = "The stream cannot be read at the moment."
        raise UnavailableError(message, "state_unavailable", retry_after_s=1) from None
    if part is None:
        raise NotFoundError("There is no such stream.", "stream_not_found")
    if part.state is StreamState.GONE:
        raise GoneError("The time within which this stream could be resumed is over.", "stream_expired")
    return part
