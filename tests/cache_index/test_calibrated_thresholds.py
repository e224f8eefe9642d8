"""The thresholds follow what was found of hits and near misses, for each tenant apart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from cluster.cache.calibrated_thresholds import (
    FRESH_S,
    MAX_REPORTS,
    MAX_REPORTS_OF_ONE,
    MAX_TENANTS,
    CalibratedThresholds,
    evidence,
)
from cluster.state.pair_judgement import PairJudgement
from router.cache.calibration_table import CalibrationTable, Row
from router.cache.hit_threshold import Evidence, Judged, threshold_for
from router.ports.answer_cache import HitJudge
from tests.cache_index.memory_questions import MemoryQuestions
from tests.state.clock import VirtualClock

TABLE = CalibrationTable(
    version="s@1", different=10_000, same=1000, rows=tuple(Row(1 - n / 1000, n, n) for n in range(1, 900))
)
SHIPPED = threshold_for(TABLE, 0.01)


def judged(
    score: float, wrong: bool, judge: HitJudge = HitJudge.SHADOW, pair: str = "", weight: float = 1.0, who: str = ""
) -> PairJudgement:
    return PairJudgement("s@1", wrong, judge, score, pair, weight, who)


async def moved(judgements: Iterable[PairJudgement], tenant: str = "acme", bound: float = 0.01) -> tuple[float, float]:
    """The thresholds of acme and of another tenant, after ``judgements`` of ``tenant``."""
    questions = MemoryQuestions()
    for each in judgements:
        await questions.judge(tenant, each)
    thresholds = CalibratedThresholds(TABLE, questions, VirtualClock())
    for name in ("acme", "other"):
        thresholds(name, bound)
        await settled(thresholds, name)
    return thresholds("acme", bound), thresholds("other", bound)


async def settled(thresholds: CalibratedThresholds, tenant: str = "acme") -> None:
    reading = thresholds._tenants[tenant].reading
    assert reading is not None
    await reading


async def test_without_evidence_the_shipped_calibration_counts() -> None:
    thresholds = CalibratedThresholds(TABLE, MemoryQuestions(), VirtualClock())
    assert thresholds("acme", 0.01) == threshold_for(TABLE, 0.01)
    assert thresholds("acme", 0.03) == threshold_for(TABLE, 0.03)
    assert thresholds("acme", 0.03) < thresholds("acme", 0.01)
    await settled(thresholds)


async def test_wrong_hits_raise_the_threshold_of_their_tenant_alone_once_they_are_read() -> None:
    questions, clock = MemoryQuestions(), VirtualClock()
    thresholds = CalibratedThresholds(TABLE, questions, clock)
    for tenant in ("acme", "other"):
        assert thresholds(tenant, 0.01) == SHIPPED
        await settled(thresholds, tenant)
    for number in range(50):
        await questions.judge("acme", judged(0.995, True, pair=f"{number}"))
        await questions.judge("other", judged(0.995, True, pair=f"{number}")._replace(version="s@2"))
    assert thresholds("acme", 0.01) == SHIPPED
    clock.advance(FRESH_S)
    for tenant in ("acme", "other"):
        thresholds(tenant, 0.01)
        await settled(thresholds, tenant)
    assert thresholds("acme", 0.01) > SHIPPED
    assert thresholds("other", 0.01) == SHIPPED


async def test_near_misses_that_differ_and_hits_that_are_right_lower_the_threshold_of_their_tenant_alone() -> None:
    near = [judged(0.9, True, HitJudge.NEAR_MISS, f"n{number}", 10.0) for number in range(2000)]
    right = [judged(0.998, False, pair=f"r{number}", weight=100.0) for number in range(200)]
    acme, other = await moved([*near, *right])
    assert acme < SHIPPED
    assert other == SHIPPED
    few, _ = await moved([*near[:100], *right])
    assert few == SHIPPED


async def test_wrong_hits_weigh_as_many_as_they_stand_for() -> None:
    near = [judged(0.9, True, HitJudge.NEAR_MISS, f"n{number}", 10.0) for number in range(2000)]
    wrong = [judged(0.998, True, pair=f"w{number}", weight=100.0) for number in range(20)]
    acme, _ = await moved([*near, *wrong])  # 2,000 wrong hits of 22,000 different pairs
    assert acme > SHIPPED


async def test_a_client_that_reports_the_same_pair_again_and_again_moves_nothing_more() -> None:
    once, _ = await moved([judged(0.999, True, HitJudge.CLIENT, "p", who="key-1")], bound=0.03)
    often, _ = await moved([judged(0.999, True, HitJudge.CLIENT, "p", who="key-1")] * 500, bound=0.03)
    assert often == once


async def test_one_client_counts_a_few_times_and_all_together_some_times() -> None:
    alone = [judged(0.999, True, HitJudge.CLIENT, f"p{number}", who="key-1") for number in range(500)]
    assert len(evidence(alone).reported) == MAX_REPORTS_OF_ONE
    many = [each._replace(who=f"key-{number}") for number, each in enumerate(alone)]
    assert len(evidence(many).reported) == MAX_REPORTS


def test_a_pair_counts_once_with_its_newest_judgement() -> None:
    newest_first = [judged(0.9, False, pair="p"), judged(0.9, True, pair="p"), judged(0.8, True, pair="q")]
    assert evidence(newest_first).judged == [Judged(0.9, True), Judged(0.8, False)]


async def test_the_tenants_in_memory_are_bounded() -> None:
    thresholds = CalibratedThresholds(TABLE, MemoryQuestions(), VirtualClock())
    for number in range(MAX_TENANTS + 5):
        thresholds._known(str(number))
    assert len(thresholds._tenants) == MAX_TENANTS
    assert "4" not in thresholds._tenants


async def test_without_redis_the_former_thresholds_count() -> None:
    questions = MemoryQuestions()
    thresholds = CalibratedThresholds(TABLE, questions, VirtualClock())
    before = thresholds("acme", 0.01)
    await settled(thresholds)
    questions.available = False
    thresholds.refresh("acme")
    await settled(thresholds)
    assert thresholds("acme", 0.01) == before


async def test_many_look_ups_read_the_evidence_once() -> None:
    thresholds = CalibratedThresholds(TABLE, MemoryQuestions(), VirtualClock())
    thresholds("acme", 0.01)
    reading = thresholds._tenants["acme"].reading
    for _ in range(10):
        thresholds("acme", 0.01)
        await asyncio.sleep(0)
    assert thresholds._tenants["acme"].reading is reading


@pytest.mark.parametrize(
    ("judgement", "expected"),
    [
        (judged(0.9, True), Evidence([Judged(0.9, False)], [])),
        (judged(0.9, False), Evidence([Judged(0.9, True)], [])),
        (judged(0.7, True, HitJudge.NEAR_MISS, weight=10), Evidence([Judged(0.7, False, 10)], [])),
        (judged(0.9, True, HitJudge.CLIENT), Evidence([], [0.9])),
        (judged(0.9, False, HitJudge.CLIENT), Evidence([], [])),
        (judged(float("nan"), True), Evidence([], [])),
        (judged(1.5, True, HitJudge.CLIENT), Evidence([], [])),
    ],
    ids=["shadow-wrong", "shadow-right", "near", "client-wrong", "client-right", "nan", "range"],
)
def test_what_a_judgement_says(judgement: PairJudgement, expected: Evidence) -> None:
    assert evidence([judgement]) == expected
