"""Tiers that share the GPUs of a pool, while the metrics of one of them are missing, or it is at zero."""

from __future__ import annotations

from functools import partial

import pytest

from cluster.autoscaling.application_scaler import ApplicationScaler
from cluster.autoscaling.config import AutoscalingConfig, TierScalingConfig
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.policy import AutoscalerState
from cluster.autoscaling.replica_report import WindowedLatencies, to_numbers
from cluster.autoscaling.snapshot import WaitingRoom
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView
from engine.api import ClassLoad, EngineLoad, Priority
from tests.autoscaling.gpu_pools import GPUS, Load, Pool
from tests.autoscaling.snapshots import START_S

COMFORTABLE = 48.0  # requests/s that four replicas serve


def shared() -> Pool:
    """Two tiers that have four replicas each and need them."""
    pool = Pool(calm=Load(4, COMFORTABLE, 6), busy=Load(4, COMFORTABLE, 6))
    assert pool.run(150) == {"calm": 4, "busy": 4}
    return pool


def test_a_tier_that_is_short_of_replicas_gets_those_that_another_one_does_not_need() -> None:
    pool = shared()
    pool.loads["calm"].rate, pool.loads["calm"].running = 1.0, 1
    pool.loads["busy"].rate, pool.loads["busy"].running = 120.0, 60
    assert pool.run(200)["busy"] > 4


def test_a_tier_whose_metrics_are_stale_keeps_its_replicas_when_another_one_wants_them() -> None:
    pool = shared()
    pool.loads["calm"].fault = "stale"
    pool.loads["busy"].rate, pool.loads["busy"].running = 120.0, 60
    assert pool.run(60) == {"calm": 4, "busy": 4}
    assert pool.reason("calm") is Reason.NO_FRESH_DATA
    assert pool.reason("busy") is Reason.GPU_BUDGET


def test_a_tier_keeps_its_replicas_while_a_restarted_controller_learns_what_it_needs() -> None:
    pool = shared()
    pool.state = AutoscalerState()
    pool.loads["busy"].rate, pool.loads["busy"].running = 120.0, 60
    assert [pool.run(1) for _ in range(110)] == [{"calm": 4, "busy": 4}] * 110


def test_the_need_of_a_tier_whose_metrics_are_stale_is_no_zero() -> None:
    pool = shared()
    pool.loads["calm"].fault = "stale"
    pool.run(10)
    assert pool.state.decisions is not None
    assert pool.state.decisions.tiers["calm"].numbers["need"] == 4


def test_a_tier_at_zero_gets_its_first_replica_of_a_pool_in_use() -> None:
    pool = Pool(full=Load(8, 2 * COMFORTABLE + 8, 12), asleep=Load(0))
    pool.run(150)
    assert pool.loads["full"].replicas == 8
    pool.loads["asleep"].room = WaitingRoom(1, 30.0, 1.0)
    assert pool.run(2) == {"full": 7, "asleep": 1}


def overloaded(second: int) -> dict[str, float]:
    """The report of a replica that gets 30 requests/s and has a queue of six seconds."""
    arrivals = 30 * second
    classes = {Priority.STANDARD: ClassLoad(arrivals, 0, 500.0 * arrivals, arrivals, 100 * arrivals)}
    return to_numbers(
        EngineLoad(
            running=40,
            waiting=120,
            queued_prompt_tokens=60_000.0,
            kv_capacity_tokens=200_000.0,
            prefill_tokens_per_s=10_000.0,
            decode_step_s=0.06,
            decode_batch=40.0,
            classes=classes,
        ),
        WindowedLatencies(),
        1.0,
    )


@pytest.mark.parametrize(("readable", "most"), [(True, GPUS - 1), (False, GPUS - 3)])
def test_replicas_of_a_tier_that_cannot_be_read_keep_their_gpus(readable: bool, most: int) -> None:
    """Without them, the other tier would start replicas for which there are no GPUs."""
    tier = TierScalingConfig(min=1, max=8, pool="h100")
    config = AutoscalingConfig(tiers={"hidden": tier, "busy": tier}, pools={"h100": GPUS})
    scaler = ApplicationScaler(config, {"hidden": 1.0, "busy": 1.0})
    targets = {"hidden": 3, "busy": 3}

    def view(name: str, at_s: float) -> TierView | None:
        if name == "hidden" and not readable:
            return None
        idle = to_numbers(EngineLoad(), WindowedLatencies(), 1.0)
        report = overloaded(round(at_s - START_S)) if name == "busy" else idle
        replicas = tuple(ReplicaView(f"{name}{place}", at_s, report) for place in range(targets[name]))
        return TierView(name, targets[name], replicas)

    for second in range(200):
        at_s = START_S + second
        for name in targets:
            targets[name] = scaler.target(name, targets[name], partial(view, name, at_s), at_s)

    assert targets["busy"] == most
