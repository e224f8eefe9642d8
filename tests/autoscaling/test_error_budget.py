"""The error budget: what is learnt of requests that miss their objectives, and what the headroom makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaling.arrival_rate import ArrivalCounts
from cluster.autoscaling.config import (
    AutoscalingConfig,
    FastLoopConfig,
    ForecastConfig,
    SloConfig,
    TierScalingConfig,
)
from cluster.autoscaling.decision import TierDecision
from cluster.autoscaling.error_budget import ALLOWED, FULL, PRIOR, ErrorBudget, observed_budget, uncounted_late
from cluster.autoscaling.explain import explain
from cluster.autoscaling.histogram import LatencyHistogram
from cluster.autoscaling.policy import decide
from cluster.autoscaling.snapshot import LatencyReport, TierSnapshot
from engine.api import Priority
from tests.autoscaling.snapshots import START_S, Bench, config_of, report_of

WINDOW_S = FastLoopConfig().budget_window_s
TIER = TierScalingConfig(slos={"standard": SloConfig(ttft_p99_s=2.0, ttft_s_per_1k_tokens=1.0)})
ALL = FastLoopConfig(unspent_headroom=1.0)
HEADROOM = FastLoopConfig().headroom


def after(
    seconds: int, *, requests: float = 10.0, missed: float = 0.0, budget: ErrorBudget | None = None
) -> ErrorBudget:
    budget = budget or ErrorBudget()
    for _ in range(seconds):
        budget = budget.observe(requests, missed, 1.0, WINDOW_S)
    return budget


def test_nothing_known_counts_as_a_budget_that_is_spent() -> None:
    assert ErrorBudget().burn == 1.0
    assert ErrorBudget().spent == 1.0


def test_a_budget_of_which_no_request_missed_is_known_to_be_unspent_after_some_windows() -> None:
    spent = [after(seconds).spent for seconds in (60, 300, 600, 3600)]
    assert spent == sorted(spent, reverse=True)
    assert spent[0] > 0.9
    assert spent[-1] < 0.25


@pytest.mark.parametrize(("share", "burn"), [(0.0, 0.0), (0.002, 0.2), (0.01, 1.0), (0.05, 5.0)])
def test_the_burn_rate_is_what_misses_by_what_may(share: float, burn: float) -> None:
    assert after(3600, requests=100.0, missed=100.0 * share).burn == pytest.approx(burn, abs=0.02)


def test_a_few_requests_say_little() -> None:
    assert after(3600, requests=0.05).burn > 0.85
    assert after(1, requests=1.0, missed=1.0).burn < 1.4


def test_a_quarter_of_the_budget_is_as_good_as_spent() -> None:
    assert after(36_000, requests=100.0, missed=100.0 * ALLOWED * FULL).spent == pytest.approx(1.0, abs=0.01)


def test_a_budget_that_was_spent_recovers_within_the_hour_and_not_within_minutes() -> None:
    crowd = after(60, requests=50.0, missed=25.0, budget=after(3600, requests=50.0))
    assert crowd.spent == 1.0
    assert after(600, requests=50.0, budget=crowd).spent > 0.95
    assert after(3600, requests=50.0, budget=crowd).spent < 0.2


def test_what_is_not_observed_any_more_counts_as_spent_in_the_end() -> None:
    known = after(3600)
    assert known.unobserved(60.0, WINDOW_S).spent < 0.3
    assert known.unobserved(10 * WINDOW_S, WINDOW_S).spent == pytest.approx(1.0, abs=1e-3)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
SOUND = st.floats(0, 1e6)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(-10, 1e4)), max_size=30))
def test_whatever_is_observed_the_budget_has_its_bounds(seen: Sequence[tuple[float, float, float]]) -> None:
    budget = ErrorBudget()
    for requests, missed, elapsed_s in seen:
        budget = budget.observe(requests, missed, elapsed_s, WINDOW_S)
    assert 0.0 <= budget.missed <= budget.requests or budget.requests == inf
    assert 0.0 <= budget.known <= 1.0 + 1e-9
    assert -1e-9 <= budget.spent <= 1.0 or budget.requests == inf


@given(st.lists(st.tuples(SOUND, SOUND), min_size=1, max_size=30), SOUND)
def test_more_that_misses_never_means_less_reserve(seen: Sequence[tuple[float, float]], more: float) -> None:
    less = worse = ErrorBudget()
    for requests, missed in seen:
        less = less.observe(requests, missed, 1.0, WINDOW_S)
        worse = worse.observe(requests, missed + more, 1.0, WINDOW_S)
    assert worse.burn >= less.burn
    assert worse.spent >= less.spent


@given(SOUND, SOUND, st.floats(0.1, 100))
def test_one_long_interval_forgets_as_much_as_many_short_ones(requests: float, missed: float, elapsed_s: float) -> None:
    known = ErrorBudget(requests, min(requests, missed), 0.5)
    once, twice = known.unobserved(elapsed_s, WINDOW_S), known
    for _ in range(2):
        twice = twice.unobserved(elapsed_s / 2, WINDOW_S)
    assert twice.requests == pytest.approx(once.requests)
    assert twice.spent == pytest.approx(once.spent)


def counted(at_s: float, arrivals: float, refusals: float = 0.0, late: float = 0.0) -> ArrivalCounts:
    return ArrivalCounts(at_s, arrivals, refusals, late=late)


def test_refused_and_late_requests_miss_together_and_no_more_than_there_were() -> None:
    found = observed_budget(ErrorBudget(), counted(0, 0), counted(2, 100, 10), 3.0, WINDOW_S)
    assert (found.requests, found.missed) == (100, 16)
    of_both = observed_budget(ErrorBudget(), counted(0, 0, late=2), counted(2, 100, 10, late=7), 3.0, WINDOW_S)
    assert (of_both.requests, of_both.missed) == (100, 21)
    assert observed_budget(ErrorBudget(), counted(0, 0), counted(2, 100, 90), 1e9, WINDOW_S).missed == 100


@pytest.mark.parametrize(
    ("before", "now", "late"),
    [
        pytest.param(counted(0, 100), counted(1, 5), 0.0, id="arrivals fell: a restart"),
        pytest.param(counted(0, 100, 7), counted(1, 105, 0), 0.0, id="refusals fell"),
        pytest.param(counted(0, 100, late=3), counted(1, 105), 0.0, id="late ones fell"),
        pytest.param(counted(0, 100), counted(1, 200), None, id="no latency is known"),
    ],
)
def test_what_cannot_be_compared_is_not_learnt(before: ArrivalCounts, now: ArrivalCounts, late: float | None) -> None:
    known = after(600)
    assert observed_budget(known, before, now, late, WINDOW_S) == known.unobserved(1.0, WINDOW_S)


@pytest.mark.parametrize(
    ("before", "now"), [(None, counted(1, 5)), (counted(0, 5), None), (counted(1, 5), counted(1, 9))]
)
def test_without_two_counts_the_budget_stays(before: ArrivalCounts | None, now: ArrivalCounts | None) -> None:
    known = after(600)
    assert observed_budget(known, before, now, 0.0, WINDOW_S) is known


def test_late_is_what_the_objective_of_its_class_does_not_allow_for_a_mean_prompt() -> None:
    reports = [
        replace(report_of(0.0, 0.5, count=270), window_s=30.0),
        replace(report_of(0.0, 3.5, count=30, source="other"), window_s=30.0),
    ]
    assert uncounted_late(reports, TIER, 0.0, 1.0, 5.0) == pytest.approx(1.0)
    assert uncounted_late(reports, TIER, 2_000.0, 1.0, 5.0) == 0.0


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda report: replace(report, observed_at_s=-100.0), id="stale"),
        pytest.param(lambda report: replace(report, observed_at_s=100.0), id="of the future"),
        pytest.param(lambda report: replace(report, priority=Priority.BATCH), id="batch work"),
        pytest.param(lambda report: replace(report, window_s=0.0), id="no window"),
        pytest.param(lambda report: replace(report, window_s=nan), id="no finite window"),
        pytest.param(lambda report: replace(report, ttft=LatencyHistogram((-1, 3), (1.0,))), id="a negative count"),
        pytest.param(lambda report: replace(report, ttft=LatencyHistogram.of([])), id="no latency"),
    ],
)
def test_reports_that_are_not_of_now_or_unsound_tell_nothing(edit: Callable[[LatencyReport], LatencyReport]) -> None:
    assert uncounted_late([edit(report_of(0.0, 9.0))], TIER, 0.0, 1.0, 5.0) is None
    assert uncounted_late([], TIER, 0.0, 1.0, 5.0) is None


def test_what_replicas_count_themselves_is_not_counted_again_by_buckets() -> None:
    """While a tier is replaced, some replicas are of the release before."""
    new = replace(report_of(0.0, 9.0, count=300, source="new"), counts_late=True)
    old = replace(report_of(0.0, 9.0, count=30, source="old"), window_s=30.0)
    assert uncounted_late([new], TIER, 0.0, 1.0, 5.0) == 0.0
    assert uncounted_late([new, old], TIER, 0.0, 1.0, 5.0) == pytest.approx(1.0)


def test_a_replica_that_counts_late_requests_and_has_none_is_known_to_have_none() -> None:
    idle = replace(report_of(0.0, 0.0, count=0), counts_late=True)
    assert uncounted_late([idle], TIER, 0.0, 1.0, 5.0) == 0.0


@given(st.lists(st.floats(0, 119), max_size=50), st.floats(0, 119))
def test_latencies_above_a_limit_are_counted_to_a_bucket(latencies: list[float], limit_s: float) -> None:
    histogram = LatencyHistogram.of(latencies)
    low = max(bound for bound in (0.0, *histogram.bounds_s) if bound <= limit_s)
    high = min(bound for bound in histogram.bounds_s if bound >= limit_s)
    found = histogram.above(limit_s)
    assert sum(each > high for each in latencies) - 1e-9 <= found <= sum(each >= low for each in latencies) + 1e-9


def test_latencies_above_all_bounds_are_above_each_limit() -> None:
    assert LatencyHistogram.of([500.0, 0.1]).above(1_000.0) == 1.0


def served(bench: Bench, seconds: int, ttft_s: float = 0.3) -> list[TierDecision]:
    bench.latencies = lambda at_s: (report_of(at_s, ttft_s, count=300),)
    return bench.run(seconds)


def moving(fast: FastLoopConfig | None = None) -> Bench:
    """A tier whose flow is not steady: a step each two minutes."""
    return Bench(config=config_of(fast), replicas=8, rate=40.0, running=10)


def headrooms(fast: FastLoopConfig | None = None, ttft_s: float = 0.3, refused: float = 0.0) -> list[float]:
    bench = moving(fast)
    bench.refused = refused
    found = []
    for place in range(16):
        bench.rate = 40.0 if place % 2 else 20.0
        found += [each.numbers["headroom"] for each in served(bench, 120, ttft_s) if "headroom" in each.numbers]
    return found


def test_where_nothing_is_late_headroom_shrinks_slowly_to_what_is_kept() -> None:
    found = headrooms()
    assert found[0] == pytest.approx(HEADROOM, abs=0.01)
    assert all(0 <= a - b < 0.01 for a, b in pairwise(found))
    assert FastLoopConfig().unspent_headroom <= found[-1] < 0.45


@pytest.mark.parametrize(("ttft_s", "refused"), [(5.0, 0.0), (0.3, 0.1)], ids=["late", "refused"])
def test_where_the_budget_is_spent_all_of_the_headroom_stays(ttft_s: float, refused: float) -> None:
    assert min(headrooms(ttft_s=ttft_s, refused=refused)) == pytest.approx(HEADROOM)


def test_headroom_is_whole_whatever_happens_if_the_settings_say_so() -> None:
    assert set(headrooms(ALL)) == {HEADROOM}


def forecast_floors(unspent: float, ttft_s: float) -> list[float]:
    bench = moving(ALL)
    bench.config = replace_forecast(bench.config, unspent)
    found = []
    for place in range(16):
        bench.rate = 300.0 if place % 2 else 150.0
        found += [each.numbers["forecast_floor"] for each in served(bench, 120, ttft_s)]
    return found


def replace_forecast(config: AutoscalingConfig, unspent: float) -> AutoscalingConfig:
    return config.model_copy(update={"forecast": ForecastConfig(unspent_headroom=unspent)})


def test_a_forecast_has_less_headroom_while_nothing_is_late() -> None:
    half, whole = forecast_floors(0.5, ttft_s=0.3), forecast_floors(1.0, ttft_s=0.3)
    assert all(a <= b for a, b in zip(half, whole, strict=True))
    assert half[:60] == whole[:60]  # nothing is known yet
    assert sum(half[-600:]) < sum(whole[-600:])


def test_a_forecast_has_all_of_the_headroom_while_the_budget_is_spent() -> None:
    assert forecast_floors(0.5, ttft_s=5.0) == forecast_floors(1.0, ttft_s=5.0)


@pytest.mark.parametrize("burn", [0.0, 0.25, 0.5, 1.0, 3.0])
def test_a_known_budget_is_spent_in_proportion_to_what_counts_as_all_of_it(burn: float) -> None:
    budget = after(36_000, requests=100.0, missed=100.0 * ALLOWED * burn)
    assert budget.spent_by(1.0) == pytest.approx(min(1.0, burn), abs=0.01)
    assert budget.spent_by(1.0) <= budget.spent_by(0.25) == budget.spent


def test_a_late_request_brings_headroom_back_at_once() -> None:
    bench = moving()
    for place in range(16):
        bench.rate = 40.0 if place % 2 else 20.0
        before = served(bench, 120)[-1]
    bench.refused = 0.5
    after_loss = served(bench, 20)[-1]
    assert before.numbers["headroom"] < 0.45
    assert after_loss.numbers["headroom"] == pytest.approx(HEADROOM)


def test_long_prompts_that_are_in_time_by_their_own_objective_spend_nothing() -> None:
    """All buckets are above the objective of a mean prompt; the replicas count one request in two thousand as late."""
    bench = moving()
    bench.latencies = lambda at_s: (replace(report_of(at_s, 5.0, count=300), counts_late=True),)
    bench.late = 0.0005
    found = []
    for place in range(16):
        bench.rate = 40.0 if place % 2 else 20.0
        found = bench.run(120)
    assert found[-1].numbers["burn"] == pytest.approx(0.065, abs=0.025)
    assert found[-1].numbers["headroom"] < 0.6
    bench.late = 0.05
    assert bench.run(300)[-1].numbers["headroom"] == pytest.approx(HEADROOM)


def jumping(at_s: float, tier: TierSnapshot) -> TierSnapshot:
    """Every other minute, a router says that everything was late, and far more than there was."""
    if at_s // 60 % 2:
        wrong = replace(report_of(at_s, 1e3, count=1), ttft=LatencyHistogram((0, 10**12), (1.0,)))
        return replace(tier, latencies=(wrong,))
    return tier


def test_late_counters_that_jump_order_no_more_than_headroom_is() -> None:
    steps = []
    for edit in (jumping, lambda at_s, tier: tier):
        bench = Bench(config=config_of(), replicas=8, rate=40.0, running=10, edit=edit)
        steps.append([each.target for each in served(bench, 1200)])
    whole = [each.target for each in served(Bench(config=config_of(ALL), replicas=8, rate=40.0, running=10), 1200)]
    assert max(steps[0]) <= max(whole)
    assert all(a >= b for a, b in zip(steps[0], steps[1], strict=True))


def test_a_snapshot_that_is_seen_twice_is_counted_once() -> None:
    bench = moving()
    served(bench, 300)
    snapshot = bench.snapshot()
    once, first = decide(bench.config, bench.state, snapshot)
    again, second = decide(bench.config, once, snapshot)
    assert again is once
    assert second is first


def test_the_budget_is_explained_in_words() -> None:
    bench = moving()
    early = explain(served(bench, 120)[-1])
    assert "as the objectives allow" in early
    assert "that are known" in early
    late = explain(served(bench, 1800)[-1])
    assert "0.01 times as many requests late or refused lately as the objectives allow" in late


def test_the_prior_is_what_may_miss() -> None:
    assert ErrorBudget(0.0, 0.0, 1.0).burn == ErrorBudget(PRIOR, ALLOWED * PRIOR, 1.0).burn == 1.0


def test_time_goes_forward_for_the_budget_only() -> None:
    bench = moving()
    served(bench, 300)
    known = bench.state.tiers["fast"].budget
    bench.at_s = START_S
    bench.tick()
    assert bench.state.tiers["fast"].budget == known
