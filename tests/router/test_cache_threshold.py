"""The threshold keeps the bound on false hits, at the confidence that it promises; traffic moves it within limits."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc, betaincinv

from router.cache.calibration_table import CalibrationTable, CalibrationTableError, Scored, tabulated
from router.cache.confidence_limit import incomplete_beta, keeps_bound
from router.cache.hit_threshold import NEVER, Evidence, Judged, Limits, recalibrated, threshold_for


def pairs(number: int, seed: int = 0) -> list[Scored]:
    """Labelled pairs of which the different ones score x squared, the same ones the root of x, and some are refused."""
    rng = random.Random(seed)
    found = []
    for _ in range(number):
        same, score = rng.random() < 0.4, rng.random()
        found.append(Scored(None if rng.random() < 0.05 else score**0.5 if same else score**2, same))
    return found


TABLE = tabulated("test@1", pairs(4000))


def logit(score: float) -> float:
    return math.log(score / (1 - score))


@given(st.floats(0, 1), st.floats(0.1, 20_000), st.floats(0.1, 20_000))
def test_the_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(float(betainc(a, b, x)), abs=1e-8)


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (0, 300), (3, 10), (49, 6270), (9.5, 700.25)])
def test_a_bound_is_kept_from_scipys_limit_on(hits: float, trials: float) -> None:
    limit = float(betaincinv(hits + 1, trials - hits, 0.95))
    assert keeps_bound(hits, trials, limit + 1e-9)
    assert not keeps_bound(hits, trials, limit - 1e-9)


def test_nothing_is_promised_where_all_are_hits() -> None:
    assert not keeps_bound(10, 10, 0.999)


@pytest.mark.parametrize("bound", [0.005, 0.01, 0.03, 0.1])
def test_the_threshold_is_the_lowest_whose_limit_keeps_the_bound(bound: float) -> None:
    threshold = threshold_for(TABLE, bound)
    different = [pair.score for pair in pairs(4000) if not pair.same]
    hits = sum(score is not None and score >= threshold for score in different)
    assert keeps_bound(hits, len(different), bound)
    assert not keeps_bound(hits + 1, len(different), bound)


def test_the_bound_is_kept_on_other_pairs_as_often_as_promised() -> None:
    broken = 0
    for seed in range(200):
        threshold = threshold_for(tabulated("test@1", pairs(1500, seed)), 0.05)
        # A different pair scores x squared and is refused once in twenty, so its true rate is known.
        broken += 0.95 * (1 - threshold**0.5) > 0.05
    assert broken <= 0.05 * 200 + 7


def test_a_table_that_is_too_small_promises_nothing() -> None:
    assert threshold_for(tabulated("test@1", pairs(200)), 0.01) == NEVER


def test_recall_is_counted_down_to_the_threshold() -> None:
    threshold = threshold_for(TABLE, 0.03)
    same = [pair.score for pair in pairs(4000) if pair.same]
    share = sum(score is not None and score >= threshold for score in same) / len(same)
    assert TABLE.recall(threshold) == pytest.approx(share, abs=0.01)


@given(st.floats(0.004, 0.2), st.floats(0.004, 0.2))
def test_a_higher_bound_never_raises_the_threshold(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert threshold_for(TABLE, high) <= threshold_for(TABLE, low)


@pytest.mark.parametrize("bound", [0, 1, -0.1, math.nan])
def test_a_bound_that_is_no_rate_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold_for(TABLE, bound)


JUDGED = st.lists(st.builds(Judged, st.floats(0, 1), st.booleans(), st.floats(0.5, 20)), max_size=60)
REPORTED = st.lists(st.floats(0, 1), max_size=20)


@given(JUDGED, REPORTED)
def test_traffic_moves_the_threshold_within_limits(judged: list[Judged], reported: list[float]) -> None:
    limits = Limits(max_raise=1, max_lower=0.5, min_different=5, full=40)
    shipped = threshold_for(TABLE, 0.03)
    moved = recalibrated(TABLE, 0.03, Evidence(judged, reported), limits)
    assert logit(shipped) - 0.5 - 1e-6 <= logit(moved) <= logit(shipped) + 1 + 1e-6


@given(JUDGED, REPORTED, st.floats(0, 1), st.sampled_from([5, math.inf]))
def test_one_more_wrong_hit_never_lowers_the_threshold(
    judged: list[Judged], reported: list[float], score: float, min_different: float
) -> None:
    limits = Limits(min_different=min_different, full=400)
    before = recalibrated(TABLE, 0.03, Evidence(judged, reported), limits)
    assert recalibrated(TABLE, 0.03, Evidence(judged, [*reported, score]), limits) >= before - 1e-9


def test_many_reports_of_low_scores_lower_no_threshold() -> None:
    rng = random.Random(0)
    for _ in range(20):
        judged = [Judged(rng.betavariate(1, 4), same=False) for _ in range(rng.randint(300, 6000))]
        before = recalibrated(TABLE, 0.03, Evidence(judged))
        assert recalibrated(TABLE, 0.03, Evidence(judged, [0.01] * 50)) >= before


@given(JUDGED, st.randoms())
def test_the_order_of_evidence_makes_no_difference(judged: list[Judged], rng: random.Random) -> None:
    shuffled = rng.sample(judged, len(judged))
    one, other = (recalibrated(TABLE, 0.03, Evidence(each)) for each in (judged, shuffled))
    assert one == pytest.approx(other)


def test_without_evidence_the_threshold_is_the_shipped_one() -> None:
    assert recalibrated(TABLE, 0.01, Evidence()) == threshold_for(TABLE, 0.01)


def test_few_judged_pairs_do_not_lower_it() -> None:
    easy = [Judged(0.01, False)] * 200
    assert recalibrated(TABLE, 0.01, Evidence(easy)) == threshold_for(TABLE, 0.01)


def test_traffic_with_easy_pairs_lowers_it_and_with_hard_ones_raises_it() -> None:
    shipped = threshold_for(TABLE, 0.03)
    limits = Limits(full=2000)
    easy = recalibrated(TABLE, 0.03, Evidence([Judged(0.1, False)] * 1500), limits)
    hard = recalibrated(TABLE, 0.03, Evidence([Judged(0.99, False)] * 80 + [Judged(0.1, False)] * 300), limits)
    assert easy < shipped < hard


def test_reports_of_wrong_hits_raise_it() -> None:
    assert recalibrated(TABLE, 0.03, Evidence(reported=[0.99] * 20)) > threshold_for(TABLE, 0.03)


@pytest.mark.parametrize("wrong", [Judged(math.nan, False), Judged(0.5, False, 0), Judged(2, False)])
def test_evidence_that_is_no_score_is_refused(wrong: Judged) -> None:
    with pytest.raises(ValueError, match="judged pair"):
        recalibrated(TABLE, 0.03, Evidence([wrong]))


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(TABLE.model_dump_json(), encoding="utf-8")
    assert CalibrationTable.read(path) == TABLE


@pytest.mark.parametrize(
    "change",
    [{"rows": []}, {"rows": [[0.5, 2, 1], [0.6, 3, 2]]}, {"rows": [[0.5, 2, 1], [0.4, 2, 2]]}, {"different": 0},
     {"rows": [[0.5, 10**6, 1]]}, {"version": ""}, {"more": 1}],
)  # fmt: skip
def test_a_table_that_cannot_be_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(TABLE.model_dump() | change), encoding="utf-8")
    with pytest.raises(CalibrationTableError):
        CalibrationTable.read(path)
