"""``MemoryQuestions``: the stored questions in memory. The tests of the contract run it beside the one in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from cluster.state.pair_judgement import PairJudgement
from cluster.state.question_record import (
    PoisonedQuestionError,
    QuestionRecord,
    decode_question,
    encode_question,
)
from cluster.state.redis_questions import QuestionPage
from router.ports.state_store import StateUnavailableError


class MemoryQuestions:
    """Implements ``QuestionStore``. ``available`` False: calls raise StateUnavailableError."""

    def __init__(self) -> None:
        self.available = True
        self.data: dict[tuple[str, str], bytes] = {}
        self.positions: dict[int, str] = {}
        self.judged: list[tuple[str, PairJudgement]] = []
        self.refusals: dict[tuple[str, str], int] = {}

    async def get(self, tenant: str, ids: Sequence[str]) -> list[QuestionRecord | None]:
        self._check()
        return [self._read(tenant, entry_id) for entry_id in ids]

    async def put(self, records: Sequence[QuestionRecord]) -> None:
        self._check()
        self.data |= {(each.tenant, each.id): encode_question(each) for each in records}

    async def delete(self, entries: Iterable[tuple[str, str]]) -> None:
        self._check()
        for each in entries:
            self.data.pop(each, None)

    async def pages(self, tenant: str | None = None) -> AsyncIterator[QuestionPage]:
        self._check()
        for owner, entry_id in [each for each in self.data if tenant in (None, each[0])]:
            record = self._read(owner, entry_id)
            yield QuestionPage([], [(owner, entry_id)]) if record is None else QuestionPage([record], [])

    async def position(self, model: int) -> str | None:
        self._check()
        return self.positions.get(model)

    async def note_position(self, model: int, position: str) -> None:
        self._check()
        self.positions[model] = position

    async def judge(self, tenant: str, judgement: PairJudgement) -> None:
        self._check()
        self.judged.insert(0, (tenant, judgement))

    async def judgements(self, tenant: str, version: str) -> list[PairJudgement]:
        self._check()
        return [each for owner, each in self.judged if (owner, each.version) == (tenant, version)]

    async def refuse(self, tenant: str, pair: str, now_ms: int, expires_ms: int) -> None:
        self._check()
        self.refusals[tenant, pair] = max(expires_ms, self.refusals.get((tenant, pair), 0))

    async def refused(self, tenant: str, pairs: Sequence[str], now_ms: int) -> set[str]:
        self._check()
        return {pair for pair in pairs if self.refusals.get((tenant, pair), 0) > now_ms}

    def _read(self, tenant: str, entry_id: str) -> QuestionRecord | None:
        data = self.data.get((tenant, entry_id))
        try:
            return None if data is None else decode_question(data, tenant, entry_id)
        except PoisonedQuestionError:
            return None

    def _check(self) -> None:
        if not self.available:
            raise StateUnavailableError("the questions are switched off")
