"""A detached stream whose client does not read, and whose store is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from router.answer_events import AnswerEvent, Stamp
from router.config.resume import ResumeConfig
from router.errors import DeadlineExceededError
from router.memory_stream_store import MemoryStreamStore
from router.openai.chat_writer import ChatWriter
from router.ports.clock import SystemClock
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import StreamOwner, StreamState, StreamTerms
from router.ports.tier_backend import SlowReaderError
from router.resume.detached_stream import MAX_UNREAD_BYTES
from router.resume.detached_streams import DetachedStreams
from router.resume.stream_recorder import MAX_PENDING_BYTES
from router.routes.answer_bodies import AnswerBodies

OWNER = StreamOwner("acme", "k1")
PIECE = "x" * 1000
CONFIG = ResumeConfig(max_bytes=2**24)


class SlowStore(MemoryStreamStore):
    """Answers when ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.gate = asyncio.Event()

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
        await self.gate.wait()
        return await super().append(tenant, stream_id, owner, first, events, terms, ended=ended)


class FailingStore(MemoryStreamStore):
    """Fails the first ``faults`` appends of events."""

    def __init__(self, faults: int) -> None:
        super().__init__(SystemClock())
        self.faults = faults

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
        if events and self.faults:
            self.faults -= 1
            raise StateUnavailableError("the shared state did not answer within 2 s")
        return await super().append(tenant, stream_id, owner, first, events, terms, ended=ended)


async def pieces(count: int, store: MemoryStreamStore | None = None) -> AsyncGenerator[Sequence[str], None]:
    """``store``: the pieces come as fast as it takes them; None: at once."""
    yield ["first"]
    for number in range(count):
        await asyncio.sleep(0)
        if store is not None and number % 400 == 399:
            await written(store, number)
        yield [PIECE]


async def written(store: MemoryStreamStore, number: int) -> None:
    for _ in range(1000):
        part = await store.read("acme", "s", "k1", number - 1, 1)
        if part is not None and part.events:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"event {number} is not kept")


def streams_of(store: MemoryStreamStore) -> DetachedStreams:
    return DetachedStreams(store, CONFIG, {}, SystemClock())


async def test_a_client_that_does_not_read_is_cut_off_with_bounded_memory_and_may_resume() -> None:
    store = MemoryStreamStore(SystemClock())
    streams = streams_of(store)
    count = MAX_UNREAD_BYTES // len(PIECE) + 100
    stream = streams.begin(OWNER, "s", pieces(count, store), str, 60)
    live = stream.live()
    assert await anext(live) == (1, ["first"])
    for _ in range(2000):
        part = await store.read("acme", "s", "k1", count, 10)
        if part is not None and part.state is StreamState.ENDED:
            break
        await asyncio.sleep(0.01)
    assert part == ((PIECE,), StreamState.ENDED)
    assert stream._unread_bytes <= MAX_UNREAD_BYTES
    with pytest.raises(SlowReaderError):
        await anext(live)
    rest = [number async for number, _ in streams.read(OWNER, "s", 1)]
    assert rest[0] == 2
    await streams.close()


async def test_a_store_that_fails_for_a_moment_at_the_end_of_a_stream_gets_its_last_events() -> None:
    store = FailingStore(faults=3)
    streams = streams_of(store)
    stream = streams.begin(OWNER, "s", pieces(3), str, 60)
    received = [event async for _, events in stream.live() for event in events]
    read = [event async for _, events in streams.read(OWNER, "s", 0) for event in events]
    assert read == received == ["first", PIECE, PIECE, PIECE]
    assert store.faults == 0
    await streams.close()


async def test_a_store_that_does_not_answer_delays_the_first_event_by_a_moment_and_no_other() -> None:
    store = SlowStore()
    streams = streams_of(store)
    stream = streams.begin(OWNER, "s", pieces(MAX_PENDING_BYTES // len(PIECE) + 100), str, 60)
    async with asyncio.timeout(5):
        received = [event async for _, events in stream.live() for event in events]
    assert len(received) == MAX_PENDING_BYTES // len(PIECE) + 101
    assert not stream._recorder.kept, "its buffer is bounded"
    store.gate.set()
    await streams.close()


class Closed:
    """Batches that note when they are closed. The first was asked for before, as the route does."""

    def __init__(self) -> None:
        self.closed = False

    async def __call__(self) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        try:
            yield []
            await asyncio.sleep(60)
            yield []
        finally:
            self.closed = True


def bodies_of(batches: AsyncGenerator[Sequence[AnswerEvent], None]) -> AnswerBodies:
    return AnswerBodies(batches, ChatWriter(Stamp("s", 0, "fast")))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_stream_that_is_stopped_in_its_first_turns_ends_in_an_error_and_stops_the_work(turns: int) -> None:
    store, batches = MemoryStreamStore(SystemClock()), Closed()
    streams, answering = streams_of(store), batches()
    await anext(answering)
    stream = streams.begin(OWNER, "s", bodies_of(answering), str, 60)
    running = list(streams._running)
    for _ in range(turns):
        await asyncio.sleep(0)
    stream.stop()
    async with asyncio.timeout(5):
        with pytest.raises(DeadlineExceededError):
            [part async for part in stream.live()]
        read = [events async for _, events in streams.read(OWNER, "s", 0)]
    assert read == [("The request was ended by the server.",)]
    assert batches.closed, "without the garbage collector"
    _, late = await asyncio.wait(running, timeout=5)
    assert not late, "nor does the recorder go on"
    await streams.close()


async def test_a_router_that_stops_right_after_a_stream_has_begun_ends_it() -> None:
    store, batches = MemoryStreamStore(SystemClock()), Closed()
    streams, answering = streams_of(store), batches()
    await anext(answering)
    streams.begin(OWNER, "s", bodies_of(answering), str, 60)
    async with asyncio.timeout(1):
        await streams.close()
    assert batches.closed
