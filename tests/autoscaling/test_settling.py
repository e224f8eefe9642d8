"""A raise right after a change of the target: not for reserve alone, and at once where replicas are short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.autoscaling.config import FastLoopConfig, ForecastConfig
from cluster.autoscaling.decision import Reason, TierDecision
from cluster.autoscaling.snapshot import ReplicaState, TierSnapshot
from tests.autoscaling.snapshots import Bench, config_of, report_of

DOWN_WINDOW_S = FastLoopConfig().down_window_s
MEAN_S = FastLoopConfig().flow_window_s
WITHOUT_FORECAST = config_of().model_copy(update={"forecast": ForecastConfig(enabled=False)})


def settled(seconds: float) -> Bench:
    """Returns a tier of 8 replicas, the target of a step that was ``seconds`` ago. It keeps 6.6 of them busy, and needs
    7.8 with headroom."""
    bench = Bench(config=WITHOUT_FORECAST, replicas=5, rate=20.0, running=2)
    bench.run(20)  # two sizes of batches tell what a step costs
    bench.running = 20
    bench.run(150)
    bench.rate = 36.0
    assert bench.run(round(seconds))[-1].target == 8
    return bench


def raised(bench: Bench, rate: float) -> tuple[int, list[TierDecision]]:
    """Returns after how many seconds of ``rate`` the target is raised, and the decisions until then."""
    bench.rate = rate
    decisions = bench.run(round(DOWN_WINDOW_S + 2 * MEAN_S))
    first = next(second for second, each in enumerate(decisions) if each.target > 8)
    return first, decisions[:first]


def test_reserve_alone_raises_again_only_after_it_was_needed_for_a_whole_down_window() -> None:
    first, before = raised(settled(30), 40.5)
    assert DOWN_WINDOW_S < first < DOWN_WINDOW_S + MEAN_S
    held = [each for each in before if each.reason is Reason.SETTLING]
    assert len(held) > DOWN_WINDOW_S / 2
    for each in held:
        numbers = each.why_not_more.numbers
        assert numbers["busy"] < 8 < numbers["need"]


def test_reserve_raises_at_once_where_the_target_has_stood_for_long() -> None:
    first, before = raised(settled(2 * DOWN_WINDOW_S + 30), 40.5)
    assert first < MEAN_S
    assert not any(each.reason is Reason.SETTLING for each in before)


def test_replicas_that_are_short_are_raised_at_once() -> None:
    first, _ = raised(settled(30), 60.0)
    assert first <= 4


@pytest.mark.parametrize("short", ["queued", "latencies"])
def test_headroom_is_no_mere_reserve_where_another_signal_or_an_objective_is_missed(short: str) -> None:
    """The flow asks for most, and would hide that queues ask for more replicas too, or that first tokens are late."""
    bench = settled(60)
    if short == "queued":
        bench.queued = 60_000.0  # 6 s of each replica
    else:
        bench.latencies = lambda at_s: (report_of(at_s, ttft_s=2.8),)
    first, before = raised(bench, 40.5)
    assert first < MEAN_S
    assert not any(each.reason is Reason.SETTLING for each in before)


def test_replicas_that_never_get_ready_are_made_up_for_soon_after_the_raise_that_ordered_them() -> None:
    bench = Bench(config=WITHOUT_FORECAST, replicas=5, rate=20.0, running=2)
    bench.run(20)
    bench.running = 20
    bench.run(150)
    bench.rate, bench.starting = 36.0, True
    assert bench.run(30)[-1].target == 8
    assert bench.replicas == 5
    bench.edit = stuck
    targets = [each.target for each in bench.run(3)]
    assert targets[-1] > 8, targets


def stuck(at_s: float, tier: TierSnapshot) -> TierSnapshot:
    """Returns ``tier`` with replicas that have been starting for far too long."""
    replicas = (
        replace(each, since_s=at_s - 1_000) if each.state is ReplicaState.STARTING else each for each in tier.replicas
    )
    return replace(tier, replicas=tuple(replicas))
