"""The thresholds follow what was found of hits."""

from __future__ import annotations

import asyncio

import pytest

from cluster.cache.calibrated_thresholds import FRESH_S, Thresholds, evidence
from router.cache.calibration_table import CalibrationTable, Row
from router.cache.hit_threshold import Evidence, Judged, threshold_for
from router.ports.answer_cache import HitFeedback, HitJudge
from tests.cache_index.memory_questions import MemoryQuestions
from tests.state.clock import VirtualClock

TABLE = CalibrationTable(
    version="s@1", different=10_000, same=1000, rows=tuple(Row(1 - n / 1000, n, n) for n in range(1, 900))
)


def feedback(score: float | None, wrong: bool, judge: HitJudge = HitJudge.SHADOW) -> HitFeedback:
    return HitFeedback("acme", "id", wrong, judge, score)


async def settled(thresholds: Thresholds) -> None:
    assert thresholds._reading is not None
    await thresholds._reading


async def test_without_evidence_the_shipped_calibration_counts() -> None:
    thresholds = Thresholds(TABLE, MemoryQuestions(), VirtualClock())
    assert thresholds(0.01) == threshold_for(TABLE, 0.01)
    assert thresholds(0.03) == threshold_for(TABLE, 0.03)
    assert thresholds(0.03) < thresholds(0.01)
    await settled(thresholds)


async def test_wrong_hits_raise_the_threshold_once_they_are_read() -> None:
    questions, clock = MemoryQuestions(), VirtualClock()
    thresholds = Thresholds(TABLE, questions, clock)
    before = thresholds(0.01)
    await settled(thresholds)
    for _ in range(50):
        await questions.judge(feedback(0.995, True, HitJudge.CLIENT), "s@1")
        await questions.judge(feedback(0.995, True, HitJudge.CLIENT), "s@2")
    assert thresholds(0.01) == before
    clock.advance(FRESH_S)
    thresholds(0.01)
    await settled(thresholds)
    assert thresholds(0.01) > before


async def test_without_redis_the_former_thresholds_count() -> None:
    questions = MemoryQuestions()
    thresholds = Thresholds(TABLE, questions, VirtualClock())
    before = thresholds(0.01)
    await settled(thresholds)
    questions.available = False
    thresholds.refresh()
    await settled(thresholds)
    assert thresholds(0.01) == before


async def test_many_look_ups_read_the_evidence_once() -> None:
    thresholds = Thresholds(TABLE, MemoryQuestions(), VirtualClock())
    thresholds(0.01)
    reading = thresholds._reading
    for _ in range(10):
        thresholds(0.01)
        await asyncio.sleep(0)
    assert thresholds._reading is reading


@pytest.mark.parametrize(
    ("judgement", "expected"),
    [
        (feedback(0.9, True), Evidence([Judged(0.9, False)], [])),
        (feedback(0.9, False), Evidence([Judged(0.9, True)], [])),
        (feedback(0.9, True, HitJudge.CLIENT), Evidence([], [0.9])),
        (feedback(0.9, False, HitJudge.CLIENT), Evidence([], [])),
        (feedback(None, True), Evidence([], [])),
        (feedback(float("nan"), True), Evidence([], [])),
        (feedback(1.5, True, HitJudge.CLIENT), Evidence([], [])),
    ],
    ids=["shadow-wrong", "shadow-right", "client-wrong", "client-right", "exact", "nan", "range"],
)
def test_what_a_judgement_says(judgement: HitFeedback, expected: Evidence) -> None:
    assert evidence([judgement]) == expected
