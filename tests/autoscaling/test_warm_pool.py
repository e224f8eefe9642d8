"""Replicas that have loaded the model and serve nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.autoscaling.application_scaler import ApplicationScaler
from cluster.autoscaling.config import AutoscalingConfig, FastLoopConfig, TierScalingConfig
from cluster.autoscaling.decision import Decisions, Reason
from cluster.autoscaling.explain import explain
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.replica_report import WindowedLatencies, to_numbers
from cluster.autoscaling.snapshot import ReplicaSnapshot, ReplicaState, Snapshot, TierSnapshot
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView
from cluster.autoscaling.warm_pool import serving_target, warm_ids
from cluster.autoscaling.warm_replica_store import read_warm
from engine.api import ClassLoad, EngineLoad, Priority
from tests.autoscaling.snapshots import counters_of, ready, sample_of

T = 1_767_600_000.0


class Serve:
    """Serve's control loop for tiers with a warm pool. A replica starts in ``start_s`` seconds; the newest goes
    first."""

    def __init__(self, config: AutoscalingConfig, gpus: float = 1.0, start_s: float = 5.0) -> None:
        self.config, self.gpus, self.start_s = config, gpus, start_s
        self.at_s = T
        self.totals = {name: tier.min + tier.warm for name, tier in config.tiers.items()}
        self.born = {name: [T - 100.0] * total for name, total in self.totals.items()}
        self.queued = dict.fromkeys(config.tiers, 0.0)
        self.decisions: list[Decisions] = []
        self.warm: Mapping[str, frozenset[str]] = {}
        self.restart()

    def restart(self) -> None:
        """A new controller, which remembers nothing but the numbers of replicas."""
        self.scaler = ApplicationScaler(
            self.config, dict.fromkeys(self.config.tiers, self.gpus), self.decisions.append, on_warm=self._on_warm
        )

    def _on_warm(self, warm: Mapping[str, frozenset[str]]) -> None:
        self.warm = warm

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            for tier in self.config.tiers:
                total = self.scaler.target(tier, self.totals[tier], partial(self.view, tier), self.at_s)
                self.totals[tier] = total
                self.born[tier] = [*self.born[tier], *[self.at_s] * total][:total]
            self.at_s += 1.0

    def view(self, tier: str) -> TierView:
        arrivals = int(self.at_s - T) * 20 if self.queued[tier] else 0
        classes = {Priority.STANDARD: ClassLoad(arrivals, 0, arrivals * 500.0, arrivals, arrivals * 100)}
        load = EngineLoad(
            running=4 if self.queued[tier] else 0,
            waiting=int(self.queued[tier] / 500),
            queued_prompt_tokens=self.queued[tier],
            kv_capacity_tokens=200_000,
            prefill_tokens_per_s=10_000,
            decode_step_s=0.02,
            decode_batch=4,
            classes=classes,
        )
        numbers = to_numbers(load, WindowedLatencies(), 1.0)
        running = [n for n, born in enumerate(self.born[tier]) if born + self.start_s <= self.at_s]
        return TierView(tier, self.totals[tier], tuple(ReplicaView(f"{tier}{n}", self.at_s, numbers) for n in running))

    def decision(self, tier: str = "fast") -> tuple[int, int]:
        last = self.decisions[-1].tiers[tier]
        return last.target, last.warm


def config_of(*, pool_gpus: float | None = None, **tiers: TierScalingConfig) -> AutoscalingConfig:
    fast = FastLoopConfig(down_window_s=30.0, down_period_s=5.0)
    return AutoscalingConfig(tiers=tiers, fast=fast, pools={} if pool_gpus is None else {"h100": pool_gpus})


FAST = TierScalingConfig(min=1, max=4, warm=2)


def test_warm_replicas_run_beside_the_target_and_are_the_newest() -> None:
    serve = Serve(config_of(fast=FAST))
    serve.run(5)
    assert serve.decision() == (1, 2)
    assert serve.totals == {"fast": 3}
    assert serve.warm == {"fast": frozenset({"fast1", "fast2"})}
    assert "1 ready, 2 warm" in explain(serve.decisions[-1].tiers["fast"])


def test_a_raise_makes_warm_replicas_serve_at_once_and_starts_others_in_their_place() -> None:
    serve = Serve(config_of(fast=FAST), start_s=60.0)
    serve.run(5)
    serve.queued["fast"] = 30_000.0
    serve.run(6)
    target, warm = serve.decision()
    assert (target > 1, warm) == (True, 2)
    assert serve.totals["fast"] == target + 2
    assert len(serve.view("fast").replicas) == 3  # none has started since
    assert len(serve.warm["fast"]) == max(0, 3 - target)


def test_replicas_that_start_for_the_warm_pool_are_not_expected_to_serve() -> None:
    serve = Serve(config_of(fast=FAST), start_s=60.0)
    serve.run(5)
    serve.queued["fast"] = 12_000.0
    serve.run(6)
    numbers = serve.decisions[-1].tiers["fast"].numbers
    assert serve.decision()[0] <= 3
    assert numbers["starting"] == 0
    assert numbers["ready"] == serve.decision()[0]


def test_a_restarted_controller_keeps_the_replicas_that_serve() -> None:
    serve = Serve(config_of(fast=FAST))
    serve.queued["fast"] = 30_000.0
    serve.run(20)
    before = serve.decision()
    serve.queued["fast"] = 0.0
    serve.restart()
    serve.run(5)
    assert serve.decision() == before


def test_a_tier_that_starts_with_its_minimum_has_all_of_it_serve_and_starts_the_warm_pool_beside_it() -> None:
    serve = Serve(config_of(fast=TierScalingConfig(min=2, max=4, warm=2)))
    serve.totals["fast"], serve.born["fast"] = 2, [T - 100.0] * 2  # as Serve begins: its minimum has no warm replicas
    serve.run(1)
    assert serve.decisions[0].tiers["fast"].numbers["ready"] == 2
    serve.run(9)
    assert serve.decision() == (2, 2)
    assert serve.totals == {"fast": 4}
    assert serve.warm == {"fast": frozenset({"fast2", "fast3"})}


def test_a_tier_at_zero_has_no_warm_pool() -> None:
    serve = Serve(config_of(fast=TierScalingConfig(min=0, max=2, warm=1, idle_s=10.0)))
    serve.run(120)
    assert serve.decision() == (0, 0)
    assert serve.totals == {"fast": 0}


def test_warm_replicas_get_the_gpus_that_targets_leave() -> None:
    tier = TierScalingConfig(min=1, max=8, warm=2, pool="h100")
    serve = Serve(config_of(pool_gpus=5, fast=tier, large=tier))
    serve.run(5)
    assert (serve.decision("fast"), serve.decision("large")) == ((1, 2), (1, 1))
    serve.queued["fast"] = 80_000.0
    serve.run(60)
    assert sum(serve.totals.values()) <= 5
    assert serve.decision("fast")[0] + serve.decision("large")[0] == 5


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from(list(ReplicaState))), max_size=12), st.integers(0, 12))
def test_as_many_of_the_oldest_running_replicas_serve_as_should(
    found: list[tuple[float, ReplicaState]], serving: int
) -> None:
    replicas = [ReplicaSnapshot(f"r{n:02}", state, since_s) for n, (since_s, state) in enumerate(found)]
    running = {each.replica_id: each.since_s for each in replicas if each.state in ("ready", "warm")}
    warm = warm_ids(replicas, serving)
    serve = running.keys() - warm
    assert warm <= running.keys()
    assert len(serve) == min(serving, len(running))
    assert max((running[each] for each in serve), default=0) <= min((running[each] for each in warm), default=100)


@given(st.integers(0, 50), st.integers(0, 50))
def test_only_a_tier_that_is_asked_for_no_replica_serves_with_none(total: int, warm: int) -> None:
    assert (serving_target(total, warm) == 0) == (total == 0)
    assert serving_target(total + warm, warm) == total or total == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 60_000), min_size=1, max_size=12), st.integers(0, 3))
def test_whatever_the_load_the_deployment_has_the_target_and_the_warm_pool(loads: list[float], warm: int) -> None:
    serve = Serve(config_of(fast=TierScalingConfig(min=1, max=4, warm=warm)))
    for queued in loads:
        serve.queued["fast"] = queued
        serve.run(20)
        target, decided = serve.decision()
        assert (1 <= target <= 4, decided) == (True, warm)
        assert serve.totals["fast"] == target + warm
        assert len(serve.warm.get("fast", ())) <= warm


def test_warm_replicas_that_cannot_be_read_are_none() -> None:
    assert read_warm(b'{"fast": ["a", "b"]}') == {"fast": frozenset({"a", "b"})}
    for damaged in (b"", b"[]", b'{"fast": 3}', b"\xff"):
        assert read_warm(damaged) == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"target": "one"}, Reason.BAD_INPUT), ({}, Reason.CLOCK)],
    ids=["a snapshot that makes no sense", "a clock that goes back"],
)
def test_a_target_that_is_held_keeps_its_warm_pool(change: dict[str, str], reason: Reason) -> None:
    config, tier = config_of(fast=FAST), TierSnapshot("fast", 1, (ready(T, sample_of(T)),), counters_of(0))
    state, first = decide(config, AutoscalerState(), Snapshot(T, (tier,)))
    assert first.tiers["fast"].warm == 2

    at_s = T + 1 if change else T - 60
    _, held = decide(config, state, Snapshot(at_s, (replace(tier, **change),)))  # type: ignore[arg-type]  # the fault

    assert (held.tiers["fast"].reason, held.tiers["fast"].warm) == (reason, 2)
