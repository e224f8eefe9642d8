"""What the semantic cache needs of Redis and of the calibration. ``cluster.state.redis_questions`` implements the
first; tests implement both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from cluster.state.question_record import QuestionRecord
from cluster.state.redis_questions import QuestionPage
from router.ports.answer_cache import HitFeedback

Guard = Callable[[str, str], str | None]
"""Says why one question must not be answered with the answer to another, in a word; None: nothing speaks against it."""

Threshold = Callable[[float], float]
"""Returns the score from which a pair counts as the same, by the share of different pairs that may reach it."""


class QuestionStore(Protocol):
    """The stored questions. The docstrings of ``RedisQuestions`` hold here too."""

    async def get(self, tenant: str, ids: Sequence[str]) -> list[QuestionRecord | None]: ...
    async def put(self, records: Sequence[QuestionRecord]) -> None: ...
    async def delete(self, entries: Iterable[tuple[str, str]]) -> None: ...
    def pages(self) -> AsyncIterator[QuestionPage]: ...
    async def position(self, model: int) -> str | None: ...
    async def note_position(self, model: int, position: str) -> None: ...
    async def judge(self, feedback: HitFeedback) -> None: ...
    async def judgements(self) -> list[HitFeedback]: ...
