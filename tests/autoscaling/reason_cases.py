"""A decision of the policy for each reason code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import time

from cluster.autoscaling.config import AutoscalingConfig, FollowerConfig, ScheduleConfig, TierScalingConfig
from cluster.autoscaling.decision import Reason, TierDecision
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import (
    BatchWork,
    FollowerSnapshot,
    Pin,
    ReplicaSnapshot,
    ReplicaState,
    Snapshot,
    TierSnapshot,
    WaitingRoom,
)
from tests.autoscaling.snapshots import START_S, Bench, config_of, report_of

Case = Callable[[], TierDecision]


def loaded(**load: object) -> Case:
    """The first decision that changes the target under ``load``, or the last of ten."""

    def case() -> TierDecision:
        bench = Bench(replicas=2, rate=2.0, running=2)
        bench.run(20)
        for name, value in load.items():
            setattr(bench, name, value)
        decisions = bench.run(10)
        return next((each for each in decisions if each.target > each.previous), decisions[-1])

    return case


def uncounted(at_s: float, tier: TierSnapshot) -> TierSnapshot:
    return replace(tier, counters={})


def kv_demand() -> TierDecision:
    def full(at_s: float, tier: TierSnapshot) -> TierSnapshot:
        replicas = tuple(
            replace(each, sample=replace(each.sample, kv_demand_tokens=250_000))
            for each in tier.replicas
            if each.sample
        )
        return replace(tier, replicas=replicas, counters={})

    return Bench(replicas=2, running=2, edit=full).run(3)[-1]


def backlog() -> TierDecision:
    bench = Bench(replicas=2, running=2, queued=30_000.0, edit=lambda at_s, tier: replace(tier, counters={}))
    return bench.run(2)[-1]


def flow() -> TierDecision:
    return loaded(rate=60.0, running=40)()


def refusals() -> TierDecision:
    bench = Bench(replicas=4, rate=45.0, running=20, frozen=True)
    bench.run(40)  # no forecast yet
    bench.refused = 0.4
    return bench.run(10)[-1]


def stuck_starting() -> TierDecision:
    def stuck(at_s: float, tier: TierSnapshot) -> TierSnapshot:
        dead = ReplicaSnapshot("dead", ReplicaState.STARTING, START_S - 1000)
        return replace(tier, target=2, replicas=(tier.replicas[0], dead))

    bench = Bench(replicas=2, rate=12.0, running=30, edit=stuck, frozen=True)
    return next(each for each in bench.run(10) if each.target > each.previous)


def batch_deadline() -> TierDecision:
    work = BatchWork(START_S + 400, prompt_tokens=1e7, output_tokens=1e6)
    bench = Bench(replicas=1, rate=1.0, running=1, batch_work=(work,))
    return next(each for each in bench.run(5) if each.target > each.previous)


def waiting_room() -> TierDecision:
    return Bench(config=config_of(min=0), replicas=0, waiting_room=WaitingRoom(3, 1500.0, 2.0)).tick()


def idle() -> TierDecision:
    bench = Bench(config=config_of(min=0, idle_s=30), replicas=1)
    return next(each for each in bench.run(60) if each.target == 0)


def minimum() -> TierDecision:
    return Bench(config=config_of(min=3), replicas=1).tick()


def maximum() -> TierDecision:
    return Bench(config=config_of(max=2), replicas=3).tick()


def schedule() -> TierDecision:
    office = ScheduleConfig(min=5, start=time(7), end=time(19), days=("mon",))
    return Bench(config=config_of(schedules=[office]), replicas=1).tick()


def pinned() -> TierDecision:
    return Bench(replicas=1, pins=(Pin("fast", 6, START_S + 60, "load test"),)).tick()


def low_load() -> TierDecision:
    bench = Bench(replicas=6, rate=2.0, running=1)
    return next(each for each in bench.run(130) if each.target < each.previous)


def stabilising() -> TierDecision:
    return Bench(replicas=6, rate=2.0, running=1).run(60)[-1]


def down_rate() -> TierDecision:
    bench = Bench(replicas=1, rate=2.0, running=1)
    bench.run(130)
    bench.pins = (Pin("fast", 8, bench.at_s + 1, ""),)
    bench.run(2)
    return bench.tick()


def up_rate() -> TierDecision:
    bench = Bench(replicas=2, rate=2.0, running=2)
    bench.run(20)
    bench.rate, bench.running = 60.0, 40
    decisions = bench.run(10)
    return next(each for each in decisions if each.reason is Reason.UP_RATE)


def settling() -> TierDecision:
    bench = Bench(replicas=2, rate=2.0, running=2)
    bench.run(20)
    bench.rate, bench.running = 40.0, 8
    bench.run(90)
    bench.rate = 44.0
    return next(each for each in bench.run(60) if each.reason is Reason.SETTLING)


def starting() -> TierDecision:
    bench = Bench(replicas=2, rate=2.0, running=2, starting=True)
    bench.run(20)
    bench.rate, bench.running = 20.0, 100
    return next(each for each in bench.run(20) if each.why_not_more.reason is Reason.STARTING)


def consolidation() -> TierDecision:
    bench = Bench(replicas=6, rate=1.0, running=1, frozen=True)
    bench.run(115)
    bench.queued = 12_000.0
    return bench.run(10)[-1]


def dead_band() -> TierDecision:
    return Bench(replicas=3, rate=26.0, running=26).run(40)[-1]


def unconfirmed() -> TierDecision:
    bench = Bench(replicas=2, rate=2.0, running=2)
    bench.run(20)
    bench.rate = 80.0
    return bench.run(10)[-1]


def no_fresh_data() -> TierDecision:
    old = Bench(
        replicas=2,
        edit=lambda at_s, tier: replace(tier, replicas=tuple(replace(r, sample=None) for r in tier.replicas)),
    )
    return old.tick()


def clock() -> TierDecision:
    bench = Bench(replicas=2)
    bench.run(3)
    bench.at_s -= 60
    return bench.tick()


def bad_input() -> TierDecision:
    bench = Bench(replicas=2)
    snapshot = bench.snapshot()
    wrong = replace(snapshot.tiers[0], target="two")  # type: ignore[arg-type]  # a collector's fault
    return decide(bench.config, bench.state, replace(snapshot, tiers=(wrong,)))[1].tiers["fast"]


def not_configured() -> TierDecision:
    snapshot = Bench(replicas=2).snapshot()
    return decide(AutoscalingConfig(), AutoscalerState(), snapshot)[1].tiers["fast"]


def gpu_budget() -> TierDecision:
    config = AutoscalingConfig(tiers={"fast": TierScalingConfig(max=8, pool="a")}, pools={"a": 4})
    bench = Bench(
        config=config, replicas=2, rate=60.0, running=40, edit=lambda at_s, tier: replace(tier, gpus_per_replica=2)
    )
    return bench.run(10)[-1]


def forecast_floor() -> TierDecision:
    bench = Bench(replicas=8, rate=40.0, running=30)
    bench.run(420)
    bench.rate = 20.0
    bench.target = bench.replicas = 1
    return bench.tick()


def follows() -> TierDecision:
    config = AutoscalingConfig(followers={"Router": FollowerConfig(max=8)})
    state, decision = AutoscalerState(), None
    for second in range(5):
        seen = FollowerSnapshot("Router", 1, 1, requests=100 * second, busy_s=1.0 * second)
        state, decisions = decide(config, state, Snapshot(START_S + second, followers=(seen,)))
        decision = decisions.followers["Router"]
    assert decision is not None
    return decision


CASES: dict[Reason, Case] = {
    Reason.BACKLOG: backlog,
    Reason.KV_DEMAND: kv_demand,
    Reason.OBSERVED_TTFT: loaded(latencies=lambda at_s: (report_of(at_s, ttft_s=2.8),), running=8, edit=uncounted),
    Reason.REFUSALS: refusals,
    Reason.FLOW: flow,
    Reason.BATCH_DEADLINE: batch_deadline,
    Reason.STUCK_STARTING: stuck_starting,
    Reason.WAITING_ROOM: waiting_room,
    Reason.FORECAST_FLOOR: forecast_floor,
    Reason.MINIMUM: minimum,
    Reason.MAXIMUM: maximum,
    Reason.SCHEDULE: schedule,
    Reason.PINNED: pinned,
    Reason.GPU_BUDGET: gpu_budget,
    Reason.LOW_LOAD: low_load,
    Reason.IDLE: idle,
    Reason.STEADY: loaded(),
    Reason.STARTING: starting,
    Reason.DEAD_BAND: dead_band,
    Reason.UNCONFIRMED: unconfirmed,
    Reason.UP_RATE: up_rate,
    Reason.SETTLING: settling,
    Reason.DOWN_RATE: down_rate,
    Reason.STABILISING: stabilising,
    Reason.CONSOLIDATION: consolidation,
    Reason.NO_FRESH_DATA: no_fresh_data,
    Reason.CLOCK: clock,
    Reason.BAD_INPUT: bad_input,
    Reason.NOT_CONFIGURED: not_configured,
    Reason.FOLLOWS: follows,
}
