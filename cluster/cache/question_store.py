"""The ports of the semantic cache: ``QuestionStore`` to Redis, which ``cluster.state.redis_questions`` implements, and
``Threshold`` to the calibration. Tests implement both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from cluster.state.question_record import QuestionRecord
from cluster.state.redis_questions import QuestionPage
from router.ports.answer_cache import HitFeedback

Guard = Callable[[str, str], str | None]
"""Says why one question must not be answered with the answer to another, in a word; None: nothing speaks against it."""


class Threshold(Protocol):
    """The port to the thresholds of the pair score. Called with a bound on the rate of false hits, 0 to 1, it returns
    the score, 0 to 1, from which a candidate is a hit. ``Thresholds`` implements it; its docstrings apply here too."""

    @property
    def version(self) -> str: ...
    def __call__(self, max_false_hit_rate: float) -> float: ...
    def refresh(self) -> None: ...


class QuestionStore(Protocol):
    """The port to the stored questions and their vectors. ``RedisQuestions`` implements it; its docstrings apply here
    too."""

    async def get(self, tenant: str, ids: Sequence[str]) -> list[QuestionRecord | None]: ...
    async def put(self, records: Sequence[QuestionRecord]) -> None: ...
    async def delete(self, entries: Iterable[tuple[str, str]]) -> None: ...
    def pages(self) -> AsyncIterator[QuestionPage]: ...
    async def position(self, model: int) -> str | None: ...
    async def note_position(self, model: int, position: str) -> None: ...
    async def judge(self, feedback: HitFeedback, version: str) -> None: ...
    async def judgements(self, version: str) -> list[HitFeedback]: ...
