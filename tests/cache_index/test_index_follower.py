"""The index follows the stored answers: changes, gaps, restarts, outages, and what cannot be read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import redis

from cluster.cache.embedding_cache import EmbeddingCache
from cluster.cache.index_follower import FollowerState, IndexFollower
from cluster.cache.vector_index import IndexBounds, VectorIndex
from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.question_record import model_digest
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_questions import RedisQuestions
from router.memory_entry_store import MemoryEntryStore
from router.ports.answer_cache import CacheChange, ChangeKind
from router.ports.cache_entry import CacheEntry
from router.ports.embedder import EmbedderUnavailableError
from router.ports.state_store import StateUnavailableError
from tests.cache_index.memory_questions import MemoryQuestions
from tests.embedder.fake_embedder import FakeEmbedder
from tests.state.cached import ROOM, entry
from tests.state.clock import VirtualClock

DELETE, PUT = ChangeKind.DELETE, ChangeKind.PUT
Entries = MemoryEntryStore | RedisEntryStore
Questions = MemoryQuestions | RedisQuestions
Make = Callable[..., IndexFollower]


class SoonFeed:
    """The feed, but without a wait for changes that have not come."""

    def __init__(self, entries: Entries) -> None:
        self.position = entries.position
        self._changes = entries.changes

    async def changes(self, after: str, count: int, wait_s: float) -> object:
        return await self._changes(after, count, 0.001)


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def make(entries: Entries, questions: Questions, embedder: FakeEmbedder, clock: VirtualClock) -> Make:
    """Makes a follower; each is one replica."""

    def make(embedder: FakeEmbedder = embedder) -> IndexFollower:
        def index() -> VectorIndex:
            return VectorIndex(embedder.dimensions, IndexBounds(1000, 1 << 30, 1 << 30))

        feed = SoonFeed(entries)
        embeddings = EmbeddingCache(100)
        return IndexFollower(feed, entries, questions, embedder, embeddings, index, clock)  # type: ignore[arg-type]

    return make


async def steps(follower: IndexFollower, count: int = 3) -> VectorIndex:
    for _ in range(count):
        await follower.step()
    assert follower.index is not None
    return follower.index


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the follower has no event for tests
            await asyncio.sleep(0.01)


async def test_entries_come_and_go_with_the_store(entries: Entries, make: Make) -> None:
    follower = make()
    index = await steps(follower, 1)
    for number in range(3):
        await entries.put(entry(number), ROOM)
    await entries.put(entry(7, question=""), ROOM)
    await steps(follower)
    assert [index.has("acme", entry(number).id) for number in (0, 1, 2, 7)] == [True, True, True, False]
    await entries.delete("acme", entry(1).id)
    await entries.put(entry(2, version=1), ROOM)
    await steps(follower)
    assert [index.has("acme", each.id) for each in (entry(0), entry(1), entry(2), entry(2, version=1))] == [
        True,
        False,
        False,
        True,
    ]


async def test_look_ups_go_on_while_the_scan_is_compiled(make: Make) -> None:
    follower = make()
    make_index, threads = follower._make_index, list[int]()

    def compiling() -> VectorIndex:
        threads.append(threading.get_ident())
        return make_index()

    follower._make_index = compiling
    await follower.step()
    assert threads
    assert threading.get_ident() not in threads


async def test_an_entry_that_is_deleted_and_stored_again_at_once_stays(make: Make, entries: Entries) -> None:
    follower = make()
    index = await steps(follower, 1)
    kept, gone = entry(0), entry(1)
    await follower._apply(
        index,
        [change(each, kind) for each, kind in ((kept, DELETE), (kept, PUT), (gone, PUT), (gone, DELETE))],
    )
    assert index.has("acme", kept.id)
    assert not index.has("acme", gone.id)


def change(of: CacheEntry, kind: ChangeKind) -> CacheChange:
    return CacheChange("1", kind, of.tenant, of.id, of.partition, of.question, of.created_ms, of.expires_ms)


async def test_a_new_replica_reads_the_vectors_and_embeds_nothing(
    entries: Entries, make: Make, embedder: FakeEmbedder
) -> None:
    follower = make()
    await steps(follower, 1)
    for number in range(40):
        await entries.put(entry(number), ROOM)
    await steps(follower)
    await entries.delete("acme", entry(5).id)
    calls = len(embedder.calls)
    second = await steps(make())
    assert len(second) == 39
    assert not second.has("acme", entry(5).id)
    assert len(embedder.calls) == calls


async def test_a_tenant_that_was_deleted_at_once_leaves_the_index_and_what_came_later_stays(
    entries: Entries, make: Make, questions: Questions
) -> None:
    follower = make()
    for number in range(6):
        await entries.put(entry(number), ROOM)
        await entries.put(entry(number, "other"), ROOM)
    await steps(follower)
    await entries.put(entry(6), ROOM)
    await entries.clear("acme")
    await entries.put(entry(7), ROOM)
    index = await steps(follower)
    assert {place for place in index.entries() if place[0] == "acme"} == {("acme", entry(7).id)}
    assert len(index) == 7
    assert await questions.get("acme", [entry(1).id]) == [None]


async def test_questions_of_a_deleted_tenant_are_gone_that_the_index_has_evicted(
    entries: Entries, questions: Questions, embedder: FakeEmbedder, clock: VirtualClock
) -> None:
    def small() -> VectorIndex:
        return VectorIndex(embedder.dimensions, IndexBounds(2, 1 << 30, 1 << 30))

    embeddings, feed = EmbeddingCache(100), SoonFeed(entries)
    follower = IndexFollower(feed, entries, questions, embedder, embeddings, small, clock)  # type: ignore[arg-type]
    for number in range(5):
        await entries.put(entry(number), ROOM)
        await entries.put(entry(number, "other"), ROOM)
    await steps(follower)
    await entries.clear("acme")
    await entries.put(entry(7), ROOM)
    await steps(follower)

    left = {each.id async for page in questions.pages("acme") for each in page.records}
    assert left == {entry(7).id}
    assert len([each async for page in questions.pages() for each in page.records]) == 6


async def test_what_was_stored_before_the_first_replica_is_embedded(entries: Entries, make: Make) -> None:
    for number in range(150):  # more than the feed keeps
        await entries.put(entry(number), ROOM)
    assert len(await steps(make())) == 150


async def test_another_model_embeds_anew(entries: Entries, make: Make, questions: Questions) -> None:
    await entries.put(entry(1), ROOM)
    await steps(make())
    other = FakeEmbedder(dimensions=32)
    other.model = "fake@2"
    index = await steps(make(other))
    assert (len(index), index.dimensions) == (1, 32)
    (record,) = await questions.get("acme", [entry(1).id])
    assert record is not None
    assert record.model == model_digest("fake@2")


async def test_after_a_gap_nothing_is_missing(entries: Entries, make: Make) -> None:
    follower = make()
    await entries.put(entry(1), ROOM)
    await steps(follower)
    await entries.delete("acme", entry(1).id)
    for number in range(2, 400):  # more than the feed keeps
        await entries.put(entry(number), ROOM)
    index = await steps(follower, 8)
    assert len(index) == 398
    assert not index.has("acme", entry(1).id)
    assert follower.counts.rebuilds == 2


async def test_expired_entries_leave_the_index_and_their_records(
    entries: Entries, make: Make, questions: Questions, clock: VirtualClock
) -> None:
    follower = make()
    await entries.put(entry(1), ROOM)
    await entries.put(entry(2, expires_ms=entry().created_ms + 1000), ROOM)
    index = await steps(follower)
    clock.advance(2)
    await steps(follower)
    assert [index.has("acme", entry(number).id) for number in (1, 2)] == [True, False]
    assert [each is not None for each in await questions.get("acme", [entry(1).id, entry(2).id])] == [True, False]


async def test_a_question_that_is_too_long_is_left_out(entries: Entries, make: Make) -> None:
    follower = make()
    for number in range(5):
        await entries.put(entry(number, question="long " * 300 if number in (1, 3) else f"short {number}"), ROOM)
    index = await steps(follower)
    assert [index.has("acme", entry(number).id) for number in range(5)] == [True, False, True, False, True]


async def test_without_the_embedder_changes_wait(entries: Entries, make: Make, embedder: FakeEmbedder) -> None:
    follower = make()
    await steps(follower, 1)
    await entries.put(entry(1), ROOM)
    embedder.available = False
    with pytest.raises(EmbedderUnavailableError):
        await steps(follower)
    embedder.available = True
    assert (await steps(follower)).has("acme", entry(1).id)


async def test_the_vector_of_a_question_that_was_looked_up_is_used(
    entries: Entries, questions: Questions, embedder: FakeEmbedder, clock: VirtualClock, make: Make
) -> None:
    follower = make()
    await steps(follower, 1)
    vector = (await embedder.embed(["Question 1?"])).vectors[0]
    follower._embeddings.put(embedder.model, "Question 1?", vector)
    await entries.put(entry(1), ROOM)
    assert (await steps(follower)).has("acme", entry(1).id)
    assert follower.counts.embedded == 0


async def test_a_fault_is_waited_out(entries: Entries, make: Make, embedder: FakeEmbedder) -> None:
    follower = make()
    embedder.available = False
    await entries.put(entry(1), ROOM)
    task = asyncio.create_task(follower.run())
    await until(lambda: follower.state is FollowerState.WAITING)
    embedder.available = True
    await until(lambda: follower.index is not None and follower.index.has("acme", entry(1).id))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_poisoned_records_are_counted_removed_and_embedded_anew(
    redis_server: RedisServer, state: object, clock: VirtualClock, embedder: FakeEmbedder
) -> None:
    entries = RedisEntryStore(state, redis_server.url, script_clock=clock)  # type: ignore[arg-type]
    questions = RedisQuestions(state, redis_server.url)  # type: ignore[arg-type]

    def replica() -> IndexFollower:
        def index() -> VectorIndex:
            return VectorIndex(embedder.dimensions, IndexBounds(1000, 1 << 30, 1 << 30))

        feed = SoonFeed(entries)
        return IndexFollower(feed, entries, questions, embedder, EmbeddingCache(9), index, clock)  # type: ignore[arg-type]

    await entries.put(entry(1), ROOM)
    await entries.put(entry(2), ROOM)
    await steps(replica())
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(redis_names.cache_questions("acme"), entry(1).id, b"spoilt")
        follower = replica()
        assert len(await steps(follower)) == 1
        assert follower.counts.poisoned == 1
        assert client.hkeys(redis_names.cache_questions("acme")) == [entry(2).id.encode()]
        # A change that cannot be read: the index is built again, and begins after it.
        number = client.incr(redis_names.CACHE_FEED_LAST)
        client.xadd(redis_names.CACHE_FEED, {"c": "not JSON"}, id=f"{number}-0")
        assert len(await steps(follower, 4)) == 2
        assert follower.counts.poisoned == 2
        # One of the wrong types: it is left out, and the next one is read.
        for document in ('["put","acme",1,"p","q","now",null]', '["put","acme","x","p","q",0,-5]'):
            client.xadd(redis_names.CACHE_FEED, {"c": document}, id=f"{client.incr(redis_names.CACHE_FEED_LAST)}-0")
        await entries.put(entry(4), ROOM)
        assert len(await steps(follower, 2)) == 3
        assert follower.counts.poisoned == 4
        # The number of the last change is lost without the changes, as by eviction: readers begin anew.
        client.delete(redis_names.CACHE_FEED_LAST)
        assert await entries.put(entry(5), ROOM)
        assert (await steps(follower, 4)).has("acme", entry(5).id)
        client.flushall()
        assert len(await steps(follower, 4)) == 0
    await entries.put(entry(3), ROOM)
    assert (await steps(follower)).has("acme", entry(3).id)
    await entries.close()
    await questions.close()
    with pytest.raises(StateUnavailableError):
        await follower.step()
