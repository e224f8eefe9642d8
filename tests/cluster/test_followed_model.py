"""While replicas of two models answer in turn, a process follows one of them, and goes over once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest

from cluster.cache.embedding_cache import EmbeddingCache
from cluster.cache.index_follower import IndexFollower
from cluster.cache.vector_index import IndexBounds, VectorIndex
from cluster.embedder.embedder_client import EmbedderClient, EmbedderDescription
from cluster.embedder.embedder_replica import EmbedderReplica, MakeEmbedder
from cluster.embedder.embedder_reply import EmbedderReply
from cluster.embedder.followed_model import FOLLOW_AFTER_REPLIES, FOLLOW_AFTER_S, FOLLOW_SELDOM_S, FollowedModel
from router.config.retrieval import RetrievalConfig
from router.documents import Document, SearchMode
from router.memory_collection_store import MemoryCollectionStore
from router.memory_entry_store import MemoryEntryStore
from router.ports.embedder import EmbedderUnavailableError
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.collections import Collections, Found
from router.retrieval.passage_index import Query
from tests.cache_index.memory_questions import MemoryQuestions
from tests.cluster.local_fake import LocalFake
from tests.embedder.fake_embedder import FakeEmbedder
from tests.embedder.models import embedder_config
from tests.state.cached import ROOM, entry
from tests.state.clock import VirtualClock

OLD, NEW = "fake@1", "fake@2"
LATER_S = 1000.0


def after(replies: Sequence[tuple[str, float]]) -> str:
    """The model that is followed after replies by models at the given seconds."""
    followed = FollowedModel("built@1")
    for model, at in replies:
        followed = followed.after(model, at)
    return followed.model


def alone(model: str, count: int, first_s: float, last_s: float) -> list[tuple[str, float]]:
    """``count`` replies by one model, spread evenly."""
    return [(model, first_s + (last_s - first_s) * place / (count - 1)) for place in range(count)]


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([], "built@1"),
        ([("a@1", 0.0)], "a@1"),  # before, nothing was known but the files of the application
        ([("a@1", 0.0), ("b@1", LATER_S)], "a@1"),
        ([("a@1", 0.0), *alone("b@1", FOLLOW_AFTER_REPLIES, 1.0, 1.0 + FOLLOW_AFTER_S)], "b@1"),
        ([("a@1", 0.0), *alone("b@1", FOLLOW_AFTER_REPLIES, 1.0, 0.9 + FOLLOW_AFTER_S)], "a@1"),
        ([("a@1", 0.0), *alone("b@1", FOLLOW_AFTER_REPLIES - 1, 1.0, 1.0 + 2 * FOLLOW_AFTER_S)], "a@1"),
        ([("a@1", 0.0), *alone("b@1", 2, 1.0, 1.0 + FOLLOW_SELDOM_S)], "b@1"),
        ([("a@1", 0.0), ("b@1", 1.0), ("a@1", 2.0), ("b@1", 1.0 + FOLLOW_SELDOM_S)], "a@1"),
        ([("a@1", 0.0), ("b@1", 1.0), ("c@1", 2.0), ("b@1", 1.0 + FOLLOW_SELDOM_S)], "a@1"),
    ],
    ids=["none", "first", "one", "some-seconds", "too-soon", "too-few", "seldom", "still-there", "three"],
)
def test_a_process_goes_over_when_only_the_other_model_has_answered(
    replies: list[tuple[str, float]], expected: str
) -> None:
    assert after(replies) == expected


def test_a_process_stays_while_both_answer_in_turn() -> None:
    replies = [(model, float(at)) for at, model in zip(range(10_000), itertools.cycle(["a@1", "b@1"]), strict=False)]
    assert after(replies) == "a@1"


class Rollout:
    """Two replicas, one of each model, that answer in turn; ``models`` are those that are still there."""

    def __init__(self) -> None:
        self.fakes = {OLD: LocalFake(), NEW: LocalFake()}
        self.fakes[NEW].model = NEW
        config = embedder_config("unused")
        self._replicas = {name: EmbedderReplica(config, self._made(name)) for name in self.fakes}
        self.models = [OLD]
        self._turn = itertools.count()
        self.clock = VirtualClock()
        description = EmbedderDescription(OLD, 64, 256)
        self.client = EmbedderClient(self._ask, config, description, self.clock)

    def _made(self, name: str) -> MakeEmbedder:
        return lambda _: self.fakes[name]

    async def _ask(self, texts: Sequence[str], tenant: str) -> EmbedderReply:
        self.clock.advance(0.5)
        return await self._replicas[self.models[next(self._turn) % len(self.models)]].embed(texts, tenant)

    @property
    def texts(self) -> int:
        """How many texts both have embedded."""
        return sum(len(call) for fake in self.fakes.values() for call in fake.calls)


@pytest.fixture
def rollout() -> Rollout:
    return Rollout()


async def test_each_reply_says_which_model_has_made_it(rollout: Rollout) -> None:
    await rollout.client.embed(["first"])
    rollout.models = [OLD, NEW]
    found = [(await rollout.client.embed(["a"])).model for _ in range(4)]
    assert sorted(found) == [OLD, OLD, NEW, NEW]
    assert rollout.client.model == OLD


@pytest.fixture
async def collections(rollout: Rollout) -> AsyncIterator[Collections]:
    made = Collections(RetrievalConfig(), MemoryCollectionStore(), ChunkEmbedder(rollout.client), VirtualClock())
    await made.start()
    await made.create("acme", "notes", {})
    await made.add("acme", "notes", [Document(str(n), f"The harbour of town {n} is north.") for n in range(20)])
    assert made.worker is not None
    await made.worker.drained()
    yield made
    await made.close()


async def search(collections: Collections, embedder: ChunkEmbedder, text: str) -> Found | None:
    """None: the embedder of the followed model has not answered."""
    try:
        made = await embedder.vectors([text])
    except EmbedderUnavailableError:
        return None
    query = Query.of(text, made.rows[0], made.model)
    return await collections.search("acme", "notes", query, SearchMode.HYBRID, 4, 1.0, None)


async def test_collections_are_embedded_anew_once_however_often_the_models_take_turns(
    collections: Collections, rollout: Rollout
) -> None:
    embedder = ChunkEmbedder(rollout.client)
    rollout.models = [OLD, NEW]
    before = rollout.texts
    found = [await search(collections, embedder, f"harbour {n}") for n in range(40)]

    assert [each is not None and each.with_vectors for each in found].count(True) == 20
    assert rollout.texts - before == 40, "no document is embedded"

    rollout.models = [NEW]
    assert collections.worker is not None
    for n in range(40, 60):
        await search(collections, embedder, f"harbour {n}")
        await collections.worker.drained()
    found = [await search(collections, embedder, f"harbour {n}") for n in range(60, 80)]

    assert all(each is not None and each.with_vectors for each in found)
    assert rollout.texts - before == 80 + 20, "each document once"


async def test_the_index_of_answers_is_built_anew_once_however_often_the_models_take_turns(rollout: Rollout) -> None:
    clock = VirtualClock()
    entries, questions = MemoryEntryStore(clock), MemoryQuestions()

    def index() -> VectorIndex:
        return VectorIndex(64, IndexBounds(1000, 1 << 30, 1 << 30))

    follower = IndexFollower(entries, entries, questions, rollout.client, EmbeddingCache(10), index, clock)
    await follower.step()
    rollout.models = [OLD, NEW]
    for number in range(20):
        await entries.put(entry(number, question=f"Question {number}?"), ROOM)
        for _ in range(2):  # the second is asked of the other replica
            try:
                await follower.step()
                break
            except EmbedderUnavailableError:
                continue

    assert follower.index is not None
    assert len(follower.index) == 20
    assert (follower.counts.rebuilds, follower.counts.embedded) == (1, 20)
    assert rollout.fakes[OLD].tenants == ["acme"] * 20

    rollout.models = [NEW]
    for _ in range(20):
        await rollout.client.embed(["look-up"])
    await follower.step()

    assert (follower.counts.rebuilds, follower.counts.embedded) == (2, 40)


async def test_questions_of_many_tenants_are_embedded_though_replicas_of_two_models_take_turns(
    rollout: Rollout,
) -> None:
    clock = VirtualClock()
    entries, questions = MemoryEntryStore(clock), MemoryQuestions()

    def index() -> VectorIndex:
        return VectorIndex(64, IndexBounds(1000, 1 << 30, 1 << 30))

    follower = IndexFollower(entries, entries, questions, rollout.client, EmbeddingCache(10), index, clock)
    await follower.step()
    await rollout.client.embed(["look-up"])
    for number in range(6):
        await entries.put(entry(number, tenant=f"tenant-{number}"), ROOM)
    rollout.models = [OLD, NEW]
    for _ in range(12):
        with contextlib.suppress(EmbedderUnavailableError):
            await follower.step()
            break

    assert follower.index is not None
    assert len(follower.index) == 6
    assert (follower.counts.rebuilds, follower.counts.embedded) == (1, 6)


async def test_a_part_of_an_index_that_a_fault_has_left_is_not_taken_for_the_whole() -> None:
    clock, embedder = VirtualClock(), FakeEmbedder()
    entries = MemoryEntryStore(clock)

    def index() -> VectorIndex:
        return VectorIndex(64, IndexBounds(1000, 1 << 30, 1 << 30))

    follower = IndexFollower(entries, entries, MemoryQuestions(), embedder, EmbeddingCache(10), index, clock)
    await follower.step()
    for number in range(3):
        await entries.put(entry(number, question=f"Question {number}?"), ROOM)
    await follower.step()
    embedder.model, embedder.available = NEW, False
    with pytest.raises(EmbedderUnavailableError):
        await follower.step()
    embedder.available = True

    await follower.step()

    assert follower.index is not None
    assert len(follower.index) == 3
