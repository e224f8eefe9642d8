"""``SemanticLookup``: finds the stored question that means the same: vector search, pair scorer, pair guard."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.cache.candidate_choice import Judged, decide, known_score
from cluster.cache.embedding_cache import EmbeddingCache
from cluster.cache.index_follower import IndexFollower
from cluster.cache.ports import PairGuard, QuestionStore, Threshold
from cluster.state.pair_judgement import PairJudgement, pair_digest
from cluster.state.question_record import QuestionRecord, model_digest
from router.ports.answer_cache import (
    HitFeedback,
    HitJudge,
    SemanticMatch,
    SemanticQuestion,
    SemanticUnavailableError,
)
from router.ports.clock import Clock
from router.ports.embedder import Embedder, EmbedderUnavailableError, TextTooLongError
from router.ports.pair_scorer import Candidate, PairScorer
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

FOUND_WRONG = "found wrong"
"""The reason of a pair that a comparison or a client has found wrong before."""
RANKED_AGAIN = 2
"""How many more candidates the index gives than are judged: they are ranked again by their exact vectors."""


@dataclass(frozen=True, slots=True)
class LookupLimits:
    """Limits of one look-up. At most ``candidates`` stored questions are judged by the pair stage. Only questions whose
    cosine with the one asked is at least ``min_similarity``, from -1 to 1, are candidates."""

    candidates: int
    min_similarity: float


class SemanticLookup:
    """The semantic index in a replica's process. Implements ``SemanticIndex``. All calls are on one event loop.

    Each look-up reads the candidates' questions from Redis, so that deleted entries are no hits on any replica.
    """

    def __init__(
        self,
        follower: IndexFollower,
        questions: QuestionStore,
        embedder: Embedder,
        embeddings: EmbeddingCache,
        scorer: PairScorer,
        guard: PairGuard,
        threshold: Threshold,
        limits: LookupLimits,
        clock: Clock,
    ) -> None:
        self._follower = follower
        self._questions = questions
        self._embedder = embedder
        self._embeddings = embeddings
        self._scorer = scorer
        self._guard = guard
        self._threshold = threshold
        self._limits = limits
        self._clock = clock

    async def lookup(self, question: SemanticQuestion) -> SemanticMatch | None:
        """Returns the best candidate; None if no stored question is similar enough, or the question is too long to be
        compared.

        Raises SemanticUnavailableError if the index is not built yet, Redis or the embedder does not answer, or the
        embedder has another model than the index.
        """
        index = self._follower.index
        if index is None:
            raise SemanticUnavailableError("the semantic index is being built")
        if not index.has_partition(question.tenant, question.partition):
            return None  # without the time that embedding takes
        try:
            vector = await self._vector(question.tenant, question.text)
            if vector is None:
                return None
            near = await self.candidates(question, vector)
            judged = await self._judge(question, near)
            match = decide(judged, self._threshold(question.tenant, question.max_false_hit_rate))
        except (EmbedderUnavailableError, StateUnavailableError) as error:
            raise SemanticUnavailableError(str(error)) from error
        if match is not None and match.hit:
            index.touch(question.tenant, match.entry_id)
        return match

    async def candidates(
        self, question: SemanticQuestion, vector: NDArray[np.float32]
    ) -> list[tuple[QuestionRecord, float]]:
        """Returns the nearest stored questions and their cosines with ``vector``, the highest first, within the limits.
        Must not be called before the index is built. Raises StateUnavailableError if Redis does not answer."""
        index, limits = self._follower.index, self._limits
        assert index is not None
        now_ms = int(1000 * self._clock.now())
        count = limits.candidates + RANKED_AGAIN
        near = index.search(question.tenant, question.partition, vector, count, now_ms, question.min_created_ms)
        records = await self._questions.get(question.tenant, [each.id for each in near])
        found = [
            (record, float(record.vector @ vector))
            for record in records
            if record is not None and record.partition == question.partition and record.model == self._follower.model
        ]
        found.sort(key=lambda each: -each[1])
        return [each for each in found if each[1] >= limits.min_similarity][: limits.candidates]

    async def feedback(self, feedback: HitFeedback) -> None:
        """Adds the judgement of a pair to the tenant's labelled data, and refuses the pair from now on if it was wrong,
        on any replica. If a client does not say for which question the answer was wrong, the entry is deleted from the
        index, so that it answers only the question it was stored with. Raises SemanticUnavailableError."""
        tenant, entry_id, now_ms = feedback.tenant, feedback.entry_id, int(1000 * self._clock.now())
        try:
            if feedback.wrong and feedback.judge is HitJudge.CLIENT and not feedback.question:
                if self._follower.index is not None:
                    self._follower.index.remove(tenant, entry_id)
                return await self._questions.delete([(tenant, entry_id)])
            (record,) = await self._questions.get(tenant, [entry_id])
            if record is None or feedback.question in ("", record.question):
                return None
            pair = pair_digest(record.partition, feedback.question, record.question)
            if feedback.wrong:
                await self._questions.refuse(tenant, pair, now_ms, record.expires_ms)
            score = feedback.score if feedback.score is not None else await self._score(feedback.question, record)
            if score is not None:
                judged = feedback.wrong, feedback.judge, score, pair, feedback.weight, feedback.who
                await self._questions.judge(tenant, PairJudgement(self._threshold.version, *judged))
                self._threshold.refresh(tenant)
        except (EmbedderUnavailableError, StateUnavailableError) as error:
            raise SemanticUnavailableError(str(error)) from error

    async def _score(self, question: str, record: QuestionRecord) -> float | None:
        """Returns the score of a pair that a client has named; None if it could not have been a hit. It is not asked
        for: who reports a hit could say any."""
        vector = None if record.model != self._follower.model else await self._vector(record.tenant, question)
        if vector is None or self._guard(question, record.question) is not None:
            return None
        cosine = float(record.vector @ vector)
        if cosine < self._limits.min_similarity:
            return None
        (score,) = await self._scorer.score(question, [Candidate(record.question, cosine)])
        return score

    async def _vector(self, tenant: str, text: str) -> NDArray[np.float32] | None:
        """Returns the vector of a tenant's question by the model of the index; None if it is too long. Raises
        SemanticUnavailableError if the embedder has another model than the index."""
        model = self._embedder.model
        vector = self._embeddings.get(model, text)
        if vector is None:
            try:
                found = await self._embedder.embed([text], tenant)
            except TextTooLongError:
                return None
            model, vector = found.model, found.vectors[0]
            self._embeddings.put(model, text, vector)
        if model_digest(model) != self._follower.model:
            raise SemanticUnavailableError("the embedder has another model than the index")
        return vector

    async def _judge(self, question: SemanticQuestion, near: list[tuple[QuestionRecord, float]]) -> list[Judged]:
        """Returns what guard and pair scorer say of each candidate. The scorer is asked about what the guard passes and
        was not found wrong before."""
        text = question.text
        judged: list[Judged] = []
        passed: list[tuple[QuestionRecord, float]] = []
        for record, cosine in near:
            if (score := known_score(text, record.question)) is not None:
                return [Judged(record.id, cosine, score)]
            reason = self._guard(text, record.question)
            if reason is None:
                passed.append((record, cosine))
            else:
                judged.append(Judged(record.id, cosine, refused_by=reason))
        pairs = [pair_digest(record.partition, text, record.question) for record, _ in passed]
        wrong = await self._questions.refused(question.tenant, pairs, int(1000 * self._clock.now()))
        if wrong:
            again = [each for pair, each in zip(pairs, passed, strict=True) if pair in wrong]
            judged += [Judged(record.id, cosine, refused_by=FOUND_WRONG) for record, cosine in again]
            passed = [each for pair, each in zip(pairs, passed, strict=True) if pair not in wrong]
        scores = await self._scorer.score(text, [Candidate(record.question, cosine) for record, cosine in passed])
        return judged + [
            Judged(record.id, cosine, score) for (record, cosine), score in zip(passed, scores, strict=True)
        ]
