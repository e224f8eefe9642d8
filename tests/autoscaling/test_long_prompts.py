"""Objectives that are longer for longer prompts: how long a queue they allow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.autoscaling.config import AutoscalingConfig, SloConfig
from cluster.autoscaling.decision import Need, Reason, TierDecision
from cluster.autoscaling.explain import explain
from cluster.autoscaling.snapshot import TierSnapshot
from tests.autoscaling.snapshots import Bench, config_of, counters_of, report_of

LONG = 4000.0  # tokens of a prompt, 0.4 s of prefill
PER_1K_S = 0.5  # the objective is 4 s for such a prompt


def scaled(per_1k_s: float, ttft_s: float = 2.0) -> AutoscalingConfig:
    slo = SloConfig(ttft_p99_s=ttft_s, ttft_s_per_1k_tokens=per_1k_s, itl_p99_s=0.1)
    return config_of(slos={"standard": slo})


def need_of(decision: TierDecision, reason: Reason) -> Need:
    return next(need for need in decision.needs if need.reason is reason)


def decided(config: AutoscalingConfig, queued: float = 0.0, ttft_s: float | None = None) -> TierDecision:
    """The decision after a minute of four requests/s with long prompts."""

    def with_long_prompts(at_s: float, tier: TierSnapshot) -> TierSnapshot:
        return replace(tier, counters=counters_of(bench.arrivals, prompt=LONG))

    bench = Bench(config, replicas=3, rate=4.0, running=4, queued=queued, edit=with_long_prompts, frozen=True)
    if ttft_s is not None:
        bench.latencies = lambda at_s: (report_of(at_s, ttft_s),)
    return bench.run(60)[-1]


def test_the_queue_of_long_prompts_may_be_as_long_as_with_that_long_an_objective_for_all() -> None:
    longer, fixed = decided(scaled(PER_1K_S), 5000.0), decided(scaled(0.0, ttft_s=4.0), 5000.0)
    assert need_of(longer, Reason.BACKLOG) == need_of(fixed, Reason.BACKLOG)
    assert need_of(longer, Reason.BACKLOG).replicas < need_of(decided(scaled(0.0), 5000.0), Reason.BACKLOG).replicas


def test_the_headroom_is_that_of_short_prompts_which_cannot_wait_longer() -> None:
    assert need_of(decided(scaled(PER_1K_S)), Reason.FLOW) == need_of(decided(scaled(0.0)), Reason.FLOW)


@pytest.mark.parametrize(("per_1k_s", "late"), [(0.0, True), (PER_1K_S, False)])
def test_first_tokens_of_long_prompts_are_late_only_after_their_longer_objective(per_1k_s: float, late: bool) -> None:
    decision = decided(scaled(per_1k_s), ttft_s=3.5)
    assert any(need.reason is Reason.OBSERVED_TTFT for need in decision.needs) is late
    assert f"{4 if per_1k_s else 2} s allowed" in explain(decision)
