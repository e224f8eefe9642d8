"""``StreamRequests``: the way of a client that has lost the connection of a detached stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from router.access.authenticator import Authenticator
from router.inference_request import Call
from router.limits.router_concurrency import ConcurrencyLimit
from router.ports.stream_store import StreamOwner
from router.principal import Principal
from router.resume.detached_streams import DetachedStreams


class StreamRequests:
    """Resumes detached streams. Reading on costs nothing, and a key that could begin a stream may end it: neither the
    limits nor the endpoints of the key are asked. Only the number of readers is bounded, as that of all requests."""

    def __init__(self, authenticator: Authenticator, concurrency: ConcurrencyLimit, streams: DetachedStreams) -> None:
        self._authenticator = authenticator
        self._concurrency = concurrency
        self._streams = streams

    async def run(self, call: Call, stream_id: str, after: int) -> AsyncGenerator[tuple[int, Sequence[str]], None]:
        """Authenticates the client. Yields the number of an event and its body with those that follow, from the one
        after the number ``after`` to the last.

        Raises a RefusalError, also if the stream is not one of this key.
        """
        with self._concurrency.admit():
            principal = await self._authenticator.authenticate(call.credentials, call.feature)
            with self._concurrency.share(principal.tenant):
                async with aclosing(self._streams.read(owner_of(principal), stream_id, after)) as parts:
                    async for part in parts:
                        yield part


def owner_of(principal: Principal) -> StreamOwner:
    """Returns whose the streams of a request are: those of its API key."""
    return StreamOwner(principal.tenant, principal.key_id)
