"""A question is looked up: both stages, the guard, the threshold, and what is gone or missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.cache.candidate_choice import Judged, decide
from cluster.cache.embedding_cache import EmbeddingCache
from cluster.cache.index_follower import IndexFollower
from cluster.cache.lazy_scorer import LazyScorer
from cluster.cache.semantic_lookup import LookupLimits, SemanticLookup
from cluster.cache.vector_index import IndexBounds, VectorIndex
from router.memory_entry_store import MemoryEntryStore
from router.ports.answer_cache import (
    HitFeedback,
    HitJudge,
    SemanticMatch,
    SemanticQuestion,
    SemanticUnavailableError,
)
from router.ports.pair_scorer import Candidate
from tests.cache_index.memory_questions import MemoryQuestions
from tests.cache_index.word_scorer import WordScorer, no_negation
from tests.embedder.fake_embedder import FakeEmbedder
from tests.state.cached import NOW_MS, ROOM, entry, key
from tests.state.clock import VirtualClock

PARTITION = key(9999)


class WordThreshold:
    """Implements ``Threshold`` for ``WordScorer``."""

    version = "words@1"

    def __call__(self, tenant: str, max_false_hit_rate: float) -> float:
        return 1 - max_false_hit_rate

    def refresh(self, tenant: str) -> None:
        """There is no evidence."""


class Cache:
    """An index with its stores, all in memory."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.entries = MemoryEntryStore(clock)
        self.questions = MemoryQuestions()
        self.embedder = FakeEmbedder()
        self.scorer = WordScorer()
        embeddings = EmbeddingCache(10)
        self.follower = IndexFollower(
            self.entries,
            self.entries,
            self.questions,
            self.embedder,
            embeddings,
            lambda: VectorIndex(self.embedder.dimensions, IndexBounds(1000, 1 << 30, 1 << 30)),
            clock,
        )
        self.index = SemanticLookup(
            self.follower,
            self.questions,
            self.embedder,
            embeddings,
            self.scorer,
            no_negation,
            WordThreshold(),
            LookupLimits(candidates=3, min_similarity=0.3),
            clock,
        )

    async def store(self, *texts: str, **fields: Any) -> None:
        """Stores an answer to each text, numbered from 0, and lets the index follow."""
        for number, text in enumerate(texts):
            await self.entries.put(entry(number, question=text, **fields), ROOM)
        await self.follower.step()

    async def ask(self, text: str, rate: float = 0.4, **fields: object) -> SemanticMatch | None:
        question = SemanticQuestion("acme", PARTITION, text, rate)
        return await self.index.lookup(question._replace(**fields))  # type: ignore[arg-type]


@pytest.fixture
async def cache() -> AsyncIterator[Cache]:
    made = Cache(VirtualClock())
    await made.follower.step()
    yield made
    await made.entries.close()


async def test_a_question_of_the_same_meaning_is_found(cache: Cache) -> None:
    await cache.store("how do I reset my password", "where is the station")
    match = await cache.ask("how can I reset my password")
    assert match is not None
    assert (match.entry_id, match.refused_by) == (entry(0).id, "")
    assert match.score == pytest.approx(5 / 7)
    assert 0.3 < match.similarity < 1


async def test_the_bound_sets_the_threshold(cache: Cache) -> None:
    await cache.store("how do I reset my password")
    match = await cache.ask("how can I reset my password", rate=0.1)
    assert match is not None
    assert match.refused_by == "score"


async def test_the_guard_refuses_before_the_scorer_is_asked(cache: Cache) -> None:
    await cache.store("do reset my password")
    match = await cache.ask("do not reset my password")
    assert match is not None
    assert (match.hit, match.refused_by, match.score) == (False, "negation", 0.0)
    assert cache.scorer.asked in ([], [[]])


async def test_the_same_words_are_the_same_question_whatever_the_scorer_says(cache: Cache) -> None:
    await cache.store("why")
    match = await cache.ask("why", rate=0.0)
    assert match is not None
    assert match.hit
    assert not cache.scorer.asked or cache.scorer.asked == [[]]


@pytest.mark.parametrize(
    "other",
    [{"tenant": "other"}, {"partition": key(1)}, {"min_created_ms": NOW_MS + 1}, {"text": "entirely unrelated words"}],
    ids=["tenant", "partition", "age", "far"],
)
async def test_what_is_not_near_is_no_candidate(cache: Cache, other: dict[str, Any]) -> None:
    await cache.store("how do I reset my password")
    text = str(other.pop("text", "how can I reset my password"))
    assert await cache.ask(text, **other) is None


async def test_a_partition_without_entries_costs_no_embedding(cache: Cache) -> None:
    assert await cache.ask("anything") is None
    assert cache.embedder.calls == []


async def test_a_question_is_embedded_once_for_look_up_and_storage(cache: Cache) -> None:
    await cache.store("first question of the partition")
    calls = len(cache.embedder.calls)
    assert await cache.ask("another thing") is None
    await cache.entries.put(entry(5, question="another thing"), ROOM)
    await cache.follower.step()
    assert len(cache.embedder.calls) == calls + 1


async def test_a_question_is_embedded_in_the_turn_of_its_tenant(cache: Cache) -> None:
    await cache.store("how do I reset my password")
    await cache.ask("how can I reset my password")
    report = HitFeedback("acme", entry(0).id, True, HitJudge.CLIENT, None, "how may I reset my password", who="key-1")
    await cache.index.feedback(report)
    assert cache.embedder.tenants == ["acme"] * 3


async def test_a_question_that_is_too_long_is_a_miss(cache: Cache) -> None:
    await cache.store("how do I reset my password")
    assert await cache.ask("how do I reset my password " * 100) is None


async def test_an_expired_question_is_no_candidate(cache: Cache) -> None:
    await cache.store("how do I reset my password", expires_ms=NOW_MS + 1000)
    cache.clock.advance(1)
    assert await cache.ask("how do I reset my password") is None


async def test_at_most_the_nearest_candidates_are_judged(cache: Cache) -> None:
    await cache.store(*[f"how do I reset my password {number}" for number in range(8)])
    await cache.ask("how do I reset my password")
    assert [len(each) for each in cache.scorer.asked] == [3]


def replica_beside(cache: Cache) -> Cache:
    """Another replica on the same stores."""
    second = Cache(cache.clock)
    second.index._questions = cache.questions
    second.follower._questions = cache.questions
    second.follower._entries = second.follower._feed = cache.entries
    return second


async def test_a_wrong_answer_is_used_no_more_on_any_replica(cache: Cache) -> None:
    await cache.store("how do I reset my password")
    second = replica_beside(cache)
    await second.follower.step()
    assert await second.ask("how can I reset my password") is not None
    await cache.index.feedback(HitFeedback("acme", entry(0).id, True, HitJudge.CLIENT))
    assert await cache.ask("how can I reset my password") is None
    assert await second.ask("how can I reset my password") is None
    assert await cache.questions.judgements("acme", "words@1") == []


STORED, ASKED = "how do I reset my password", "how can I reset my password"


@pytest.mark.parametrize("judge", HitJudge)
async def test_a_pair_that_was_found_wrong_is_no_hit_again_on_any_replica_in_either_order(
    cache: Cache, judge: HitJudge
) -> None:
    await cache.store(STORED)
    second = replica_beside(cache)
    await second.follower.step()
    assert (found := await second.ask(ASKED)) is not None
    assert found.hit
    await cache.index.feedback(HitFeedback("acme", entry(0).id, True, judge, 0.7, ASKED))
    for replica in (cache, second):
        assert (again := await replica.ask(ASKED)) is not None
        assert (again.entry_id, again.refused_by) == (entry(0).id, "found wrong")
        assert (other := await replica.ask("how may I reset my password")) is not None
        assert other.hit
    await cache.entries.delete("acme", entry(0).id)
    await cache.store(ASKED, version=1)
    assert (turned := await cache.ask(STORED)) is not None
    assert turned.refused_by == "found wrong"


async def test_another_candidate_takes_the_place_of_a_refused_one(cache: Cache) -> None:
    await cache.store(STORED, "how can I reset the password")
    await cache.index.feedback(HitFeedback("acme", entry(0).id, True, HitJudge.SHADOW, 0.7, ASKED))
    assert (found := await cache.ask(ASKED)) is not None
    assert (found.entry_id, found.hit) == (entry(1).id, True)


async def test_a_refusal_ends_with_its_entry(cache: Cache) -> None:
    await cache.store(STORED)
    await cache.index.feedback(HitFeedback("acme", entry(0).id, True, HitJudge.SHADOW, 0.7, ASKED))
    cache.clock.advance(61)
    now_ms = int(1000 * cache.clock.now())
    await cache.store(STORED, version=1, created_ms=now_ms, expires_ms=now_ms + 60_000)
    assert (found := await cache.ask(ASKED)) is not None
    assert found.hit


async def test_feedback_of_another_tenant_refuses_nothing(cache: Cache) -> None:
    await cache.store(STORED)
    await cache.index.feedback(HitFeedback("other", entry(0).id, True, HitJudge.CLIENT, None, ASKED))
    assert (found := await cache.ask(ASKED)) is not None
    assert found.hit
    assert cache.questions.judged == []


async def test_what_was_found_of_a_pair_is_kept_for_the_tenant(cache: Cache) -> None:
    await cache.store(STORED)
    await cache.index.feedback(HitFeedback("acme", entry(0).id, False, HitJudge.SHADOW, 0.7, ASKED, 100.0))
    (judged,) = await cache.questions.judgements("acme", "words@1")
    assert (judged.wrong, judged.judge, judged.score, judged.weight) == (False, HitJudge.SHADOW, 0.7, 100.0)
    assert (found := await cache.ask(ASKED)) is not None
    assert found.hit


async def test_the_score_of_a_reported_pair_is_the_scorers(cache: Cache) -> None:
    await cache.store(STORED)
    for question in (ASKED, "how do I not reset my password", "bananas", STORED):
        report = HitFeedback("acme", entry(0).id, True, HitJudge.CLIENT, None, question, who="key-1")
        await cache.index.feedback(report)
    (judged,) = await cache.questions.judgements("acme", "words@1")
    assert judged.score == pytest.approx(5 / 7)
    assert judged.who == "key-1"


async def test_faults_of_what_it_needs_are_one_error(cache: Cache) -> None:
    await cache.store("how do I reset my password")
    cache.embedder.available = False
    with pytest.raises(SemanticUnavailableError):
        await cache.ask("how can I reset my password")
    cache.embedder.available = True
    cache.questions.available = False
    with pytest.raises(SemanticUnavailableError):
        await cache.ask("how can I reset my password")
    with pytest.raises(SemanticUnavailableError):
        await cache.index.feedback(HitFeedback("acme", "x", True, HitJudge.CLIENT))
    with pytest.raises(SemanticUnavailableError):
        await Cache(cache.clock).ask("before the index is built")


async def test_vectors_of_two_models_are_not_compared(cache: Cache) -> None:
    await cache.store("how do I reset my password")
    cache.embedder.model = "fake@2"  # the embedder was replaced while this replica runs
    with pytest.raises(SemanticUnavailableError, match="another model"):
        await cache.ask("how can I reset my password")
    await cache.follower.step()
    match = await cache.ask("how can I reset my password")
    assert match is not None
    assert match.hit
    assert cache.follower.counts.rebuilds == 2


def test_the_decision_takes_the_best_score_that_reaches_the_threshold() -> None:
    low, high = Judged("low", 0.9, 0.5), Judged("high", 0.8, 0.7)
    refused = Judged("refused", 0.99, None, "number")
    assert decide([low, refused, high], 0.7) == SemanticMatch("high", 0.8, 0.7)
    assert decide([low, refused, high], 0.71) == SemanticMatch("high", 0.8, 0.7, "score")
    assert decide([refused, Judged("far", 0.7, None, "unit")], 0.1) == SemanticMatch("refused", 0.99, 0.0, "number")
    assert decide([], 0.1) is None


async def test_the_scorer_is_loaded_once_when_there_is_a_candidate() -> None:
    loads: list[WordScorer] = []

    def load() -> WordScorer:
        loads.append(WordScorer())
        if len(loads) == 1:
            raise OSError("not yet")
        return loads[-1]

    scorer = LazyScorer(load, "words@1")
    assert await scorer.score("a", []) == ()
    assert not loads
    with pytest.raises(OSError):
        await scorer.score("a b", [Candidate("a", 0.5)])
    scores = await asyncio.gather(*(scorer.score("a b", [Candidate("a", 0.5)]) for _ in range(3)))
    assert scores == [[0.5]] * 3
    assert len(loads) == 2
