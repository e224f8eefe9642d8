"""The product's autoscaler in the simulator: what it sees, and that it does what it is for."""

from __future__ import annotations

from collections import deque

import pytest

pytest.importorskip("cluster.autoscaling.policy", reason="the autoscaler is not there")

from cluster.autoscaling.snapshot import ReplicaState
from engine.api import Priority
from load_tests.simulation.measures import Measures, measure
from load_tests.simulation.observation import Counters, FirstTokens, Latencies, Observation, Starting
from load_tests.simulation.policies.manta import EPOCH_S, MantaPolicy
from load_tests.simulation.profile import PROFILES
from load_tests.simulation.replica import Replica
from load_tests.simulation.simulation import Settings, Simulation
from load_tests.simulation.slo import Slo
from load_tests.simulation.synthetic import synthetic
from load_tests.simulation.tier import Tier

PROFILE = PROFILES["70b-h100x2"]
TIER = Tier(PROFILE, Slo(), 1, 50, 60.0, prompt=1000.0, cached=0.0, output=200.0, capacity_rps=7.0, ongoing=30.0)


def test_the_snapshot_has_what_replicas_and_routers_would_report() -> None:
    replica = Replica(PROFILE, 4, 0.0)
    for request in range(3):
        replica.submit(0.0, request, 14_400, 100, 1.0)
    counters, latencies = Counters(7, 1, 43_200, 40_000.0, 2, 300), Latencies()
    latencies.add(10.0, [0.1, 6.1], [0.02])  # prompts of 14,400 tokens may take 3.6 s longer

    snapshot = MantaPolicy(TIER).snapshot(
        Observation(
            at=10.0,
            target=2,
            ready=[replica],
            starting=[Starting(5, 3.0)],
            draining=(),
            ready_since=[1.0],
            room=deque([30, 40]),
            room_since=8.0,
            counters=(counters, Counters()),
            latencies=(latencies, Latencies()),
        )
    )

    tier = snapshot.tiers[0]
    ready, starting = tier.replicas
    assert (ready.replica_id, ready.state, ready.since_s) == ("4", ReplicaState.READY, EPOCH_S + 1)
    assert (starting.replica_id, starting.state, starting.sample) == ("5", ReplicaState.STARTING, None)
    assert ready.sample is not None
    assert ready.sample.queued_prompt_tokens == pytest.approx(43_200)
    assert ready.sample.kv_demand_tokens == 43_200 + 3 * 150  # the mean answer, not the answers to come
    assert (ready.sample.running_requests, ready.sample.waiting_requests) == (3, 0)
    counted = tier.counters[Priority.STANDARD]
    assert (counted.arrivals, counted.refusals, counted.prompt_tokens) == (7, 1, 40_000.0)
    report = tier.latencies[0]
    assert (report.ttft.total, report.itl.total) == (2, 1)
    assert report.ttft.valid
    assert report.ttft.quantile(0.99) > 5.0  # what a replica measures, which does not know the allowance
    assert (tier.waiting_room.requests, tier.waiting_room.prompt_tokens, tier.waiting_room.oldest_s) == (2, 70, 2.0)


def seen_with(first_tokens: FirstTokens | None) -> Observation:
    """A tier with one replica, and the first tokens since the last decision."""
    return Observation(
        at=10.0,
        target=1,
        ready=[Replica(PROFILE, 4, 0.0)],
        starting=(),
        draining=(),
        ready_since=[1.0],
        room=(),
        room_since=10.0,
        counters=(Counters(), Counters()),
        latencies=(Latencies(), Latencies()),
        first_tokens=None if first_tokens is None else (first_tokens, FirstTokens()),
    )


def test_first_tokens_are_late_by_the_objective_of_their_own_prompt_and_each_counts_once() -> None:
    policy = MantaPolicy(TIER)
    late, in_time = 1_000.0, 14_400.0  # uncached tokens, with half of the allowance: 2.1 and 3.8 s
    for uncached in ([late, in_time], [], [late]):
        seen = seen_with(FirstTokens([3.0 for _ in uncached], uncached))
        policy.decide(seen)
    tier = policy.snapshot(seen).tiers[0]
    assert tier.counters[Priority.STANDARD].late == 2
    assert all(each.counts_late for each in tier.latencies)
    assert not any(each.counts_late for each in policy.snapshot(seen_with(None)).tiers[0].latencies)


def simulated(shape: str, rate: float, duration: float) -> Measures:
    trace = synthetic(shape, rate, duration, seed=2)
    settings = Settings(PROFILE, cold_start_s=20, replicas_max=50)
    tier = Tier.of(trace, settings)
    settings = Settings(PROFILE, cold_start_s=20, replicas_max=50, replicas_start=tier.start_replicas(trace))
    return measure(Simulation(trace, MantaPolicy(tier), settings).run())


def test_a_steady_load_is_served_without_wavering() -> None:
    found = simulated("steady", 25, 240)

    assert found.attainment >= 0.99
    assert found.changes <= 3


def test_a_ramp_is_followed_up_and_down() -> None:
    found = simulated("ramp", 25, 480)

    assert found.attainment >= 0.95
    assert found.mean_replicas < found.peak_replicas <= 2 * found.mean_replicas + 2
