"""``DetachedStreams``: the detached streams that this router generates, and the way to those of all routers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import Context

from router.config.resume import ResumeConfig
from router.config.tenants import TenantConfig
from router.ports.clock import Clock
from router.ports.stream_store import StreamOwner, StreamStore
from router.resume.detached_stream import Bodies, DetachedStream
from router.resume.stream_reader import read_stream
from router.resume.stream_readers import StreamReaders
from router.resume.stream_recorder import StreamRecorder, terms_of

CLOSE_S = 2.0
"""The longest that ``close`` waits for the last events to be written."""


class DetachedStreams:
    """Runs detached streams, whose events are kept in ``store``. ``tenants`` are the settings of tenants, by name:
    streams of a tenant can be switched off there."""

    def __init__(
        self, store: StreamStore, config: ResumeConfig, tenants: Mapping[str, TenantConfig], clock: Clock
    ) -> None:
        self._store = store
        self._config = config
        self._tenants = tenants
        self._clock = clock
        self._running: dict[asyncio.Task[None], DetachedStream] = {}
        self._readers = StreamReaders(config.max_streams)

    async def start(self) -> None:
        """Prepares the store."""
        await self._store.start()

    async def close(self) -> None:
        """Aborts the answers that still run, whose streams end in an error, and closes the store."""
        for stream in self._running.values():
            stream.stop()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=CLOSE_S)
            for task in late:
                task.cancel()
        await self._store.close()

    def allowed(self, tenant: str) -> bool:
        """Returns whether streams of ``tenant`` can be resumed."""
        own = self._tenants.get(tenant)
        return self._config.enabled and (own is None or own.resume)

    def begin(
        self,
        owner: StreamOwner,
        stream_id: str,
        bodies: Bodies,
        error_of: Callable[[Exception], str],
        timeout_s: float,
    ) -> DetachedStream:
        """Starts to generate an answer in the background, for at most ``timeout_s`` seconds, and returns its stream.
        ``bodies`` are the bodies of its events, in order; ``error_of`` writes the body of the error with which a stream
        ends that fails."""
        recorder = StreamRecorder(self._store, owner, stream_id, terms_of(self._config), self._clock)
        stream = DetachedStream(bodies, recorder, error_of, self._clock, self._config.window_s, timeout_s)
        # Outside the context of the HTTP request: Serve cancels what belongs to a request when its client leaves.
        task = asyncio.get_running_loop().create_task(stream.run(), context=Context())
        self._running[task] = stream
        task.add_done_callback(self._running.pop)
        return stream

    async def read(
        self, owner: StreamOwner, stream_id: str, after: int
    ) -> AsyncGenerator[tuple[int, Sequence[str]], None]:
        """Yields the events of a stream after the number ``after``, as ``read_stream`` does, whose errors it raises.
        Raises RateLimitError if there are too many readers, and ConflictError if newer ones have taken the place of
        this (``StreamReaders``)."""
        with self._readers.admit(owner, stream_id) as pause_s:
            async with aclosing(read_stream(self._store, owner, stream_id, after, pause_s)) as parts:
                async for part in parts:
                    yield part
