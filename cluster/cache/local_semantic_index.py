"""``LocalSemanticIndex``: looks a question up in the index of this process, in two stages and with a guard."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.cache.candidate_choice import Judged, decide
from cluster.cache.index_follower import IndexFollower
from cluster.cache.question_store import Guard, QuestionStore, Threshold
from cluster.cache.recent_vectors import RecentVectors
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

RANKED_AGAIN = 2
"""How many times as many candidates the index gives as are judged: they are ranked again by their exact vectors."""


@dataclass(frozen=True, slots=True)
class LookupLimits:
    """Limits of one look-up. At most ``candidates`` stored questions are judged by the pair stage. Only questions whose
    cosine with the one asked is at least ``min_similarity``, from -1 to 1, are candidates."""

    candidates: int
    min_similarity: float


class LocalSemanticIndex:
    """The semantic index in a replica's process. Implements ``SemanticIndex``. All calls are on one event loop.

    Each look-up reads the candidates' questions from Redis, so that deleted entries are no hits on any replica.
    """

    def __init__(
        self,
        follower: IndexFollower,
        questions: QuestionStore,
        embedder: Embedder,
        recent: RecentVectors,
        scorer: PairScorer,
        guard: Guard,
        threshold: Threshold,
        limits: LookupLimits,
        clock: Clock,
    ) -> None:
        self._follower = follower
        self._questions = questions
        self._embedder = embedder
        self._recent = recent
        self._scorer = scorer
        self._guard = guard
        self._threshold = threshold
        self._limits = limits
        self._clock = clock

    async def lookup(self, question: SemanticQuestion) -> SemanticMatch | None:
        """Returns the best candidate; None if no stored question is similar enough, or the question is too long to be
        compared.

        Raises SemanticUnavailableError if the index is not built yet, or Redis or the embedder does not answer.
        """
        index = self._follower.index
        if index is None:
            raise SemanticUnavailableError("the semantic index is being built")
        if not index.has_partition(question.tenant, question.partition):
            return None  # without the time that embedding takes
        try:
            vector = await self._vector(question.text)
            if vector is None:
                return None
            if model_digest(self._embedder.model) != self._follower.model:
                raise SemanticUnavailableError("the embedder has another model than the index")
            near = await self.candidates(question, vector)
            match = decide(await self._judge(question.text, near), self._threshold(question.max_false_hit_rate))
        except (EmbedderUnavailableError, StateUnavailableError) as error:
            raise SemanticUnavailableError(str(error)) from error
        if match is not None and match.hit:
            index.touch(question.tenant, match.entry_id)
        return match

    async def candidates(
        self, question: SemanticQuestion, vector: NDArray[np.float32]
    ) -> list[tuple[QuestionRecord, float]]:
        """Returns the nearest stored questions and their cosines with ``vector``, the highest first.

        Raises StateUnavailableError if Redis does not answer.
        """
        index, limits = self._follower.index, self._limits
        assert index is not None
        now_ms = int(1000 * self._clock.now())
        count = RANKED_AGAIN * limits.candidates
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
        """Stores the judgement of a hit as labelled data. If a client says that the answer was wrong, the entry is no
        semantic hit from now on, on any replica. Raises SemanticUnavailableError if Redis does not answer."""
        try:
            if feedback.wrong and feedback.judge is HitJudge.CLIENT:
                if self._follower.index is not None:
                    self._follower.index.remove(feedback.tenant, feedback.entry_id)
                await self._questions.delete([(feedback.tenant, feedback.entry_id)])
            if feedback.score is not None:  # without one it says nothing of the threshold
                await self._questions.judge(feedback, self._threshold.version)
                self._threshold.refresh()
        except StateUnavailableError as error:
            raise SemanticUnavailableError(str(error)) from error

    async def _vector(self, text: str) -> NDArray[np.float32] | None:
        """Returns the vector of a question; None if it is too long."""
        model = self._embedder.model
        vector = self._recent.get(model, text)
        if vector is None:
            try:
                vector = (await self._embedder.embed([text])).vectors[0]
            except TextTooLongError:
                return None
            self._recent.put(self._embedder.model, text, vector)
        return vector

    async def _judge(self, text: str, near: list[tuple[QuestionRecord, float]]) -> list[Judged]:
        """Returns what guard and pair scorer say of each candidate. The scorer is asked about what the guard passes."""
        judged: list[Judged] = []
        passed: list[tuple[QuestionRecord, float]] = []
        for record, cosine in near:
            if record.question == text:
                # The same words in the same partition. The scorer is trained on questions that differ.
                return [Judged(record.id, cosine, 1.0)]
            reason = self._guard(text, record.question)
            if reason is None:
                passed.append((record, cosine))
            else:
                judged.append(Judged(record.id, cosine, refused_by=reason))
        scores = await self._scorer.score(text, [Candidate(record.question, cosine) for record, cosine in passed])
        return judged + [
            Judged(record.id, cosine, score) for (record, cosine), score in zip(passed, scores, strict=True)
        ]
