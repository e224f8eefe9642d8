"""Placements in the simulator: that of the cluster is the cluster's, and how it compares with its peers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load_tests.simulation.compare_placements import main
from load_tests.simulation.fleet import Fleet
from load_tests.simulation.placement import PEERS, PREDICTED, Asked, PredictedTtft, load_of
from load_tests.simulation.policies.fixed import FixedPolicy
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.replica import MAX_PARTIAL_PREFILLS, Replica
from load_tests.simulation.simulation import Outcome, Settings, Simulation
from load_tests.simulation.trace import Trace, build
from router.latency_prediction import predict_ttft
from router.ports.replica_load import ReplicaLoad

PROFILE = ReplicaProfile("test", "none", 2, 10_000, 0.010, 50e-6, 50e-9, 512, 100_000, 64)
STORED = {
    8: (0.6869532494428036, 2.9460124099824014, 55306.05597070934, 0.16903679983803094),
    40: (0.49363893925254737, 2.431184577942929, 30941.124755977104, 0.34445419897308394),
}
"""The figures of a run, by its number of replicas: mean TTFT, highest TTFT and the sum of the instants at which all
requests end, in seconds, and the hit rate. A router of more than 16 replicas looks at a part of them."""


def conversations(count: int, rate: float, seed: int = 0) -> Trace:
    """Conversations of four turns with a system prompt that all share; each turn has the blocks of those before it."""
    draw = np.random.default_rng(seed)
    arrivals, prompts, outputs, blocks = [], [], [], []
    begun = np.cumsum(draw.exponential(4 / rate, count // 4))
    for number, at in enumerate(begun.tolist()):
        length = int(draw.integers(2, 8))
        for turn in range(4):
            chain = (0, *(1_000 * (number + 1) + block for block in range(length * (turn + 1))))
            arrivals.append(at + 20 * turn)
            prompts.append(512 * len(chain) + int(draw.integers(1, 512)))
            outputs.append(int(draw.integers(1, 100)))
            blocks.append(chain)
    return build("conversations", arrivals, prompts, outputs, blocks)


def run(trace: Trace, placement: str, replicas: int = 4, **settings: Any) -> Outcome:
    chosen = replace(
        Settings(PROFILE, replicas_start=replicas, replicas_max=replicas, placement=placement),
        **settings,
    )
    return Simulation(trace, FixedPolicy([(0.0, replicas)]), chosen).run()


def p90(outcome: Outcome) -> float:
    return float(np.nanpercentile(outcome.first - outcome.trace.arrival, 90))


def test_prediction_beats_every_peer_at_no_lower_hit_rate() -> None:
    trace = conversations(1_200, rate=5.0)
    ours = run(trace, PREDICTED)
    peers = {name: run(trace, name) for name in PEERS}
    assert all(p90(ours) < p90(peer) for peer in peers.values()), {name: p90(peer) for name, peer in peers.items()}
    unweighed = [peers[name] for name in ("round-robin", "least-outstanding", "affinity")]
    assert all(ours.hit_rate >= peer.hit_rate - 0.01 for peer in unweighed)


def test_several_routers_with_old_reports_do_not_herd() -> None:
    trace = conversations(1_200, rate=5.0)
    blind = run(trace, PREDICTED, routers=8, report_s=0.5)
    assert p90(blind) < p90(run(trace, "least-outstanding"))


def test_the_predictions_of_the_simulator_are_near() -> None:
    outcome = run(conversations(1_200, rate=4.0), PREDICTED)
    predicted, measured = np.array(outcome.predictions).T
    assert len(predicted) == len(outcome.trace)
    assert float(np.median(np.abs(predicted - measured) / measured)) < 0.2


def test_the_same_requests_go_to_the_same_replicas_again() -> None:
    trace = conversations(400, rate=5.0)
    first, second = (run(trace, PREDICTED) for _ in range(2))
    assert np.array_equal(first.end, second.end)


@pytest.mark.parametrize("count", [3, 40])
def test_an_idle_replica_is_found_among_busy_ones(count: int) -> None:
    fleet = Fleet(PROFILE, count + 1)
    for slot in range(count):
        assert fleet.start(0.0) == slot
        fleet.make_ready(slot, 0.0)
        if slot != 2:
            fleet.replica(slot).submit(0.0, slot, 5_000, 10, 0.5)
        fleet.note_load(fleet.replica(slot))
    assert PredictedTtft(100.0, 2.0).choose(fleet, Asked(99, (), 1_000, 0.0)) == 2


def test_requests_of_one_instant_are_spread_although_no_report_comes_between_them() -> None:
    fleet = Fleet(PROFILE, 4)
    for slot in range(4):
        assert fleet.start(0.0) == slot
        fleet.make_ready(slot, 0.0)
        fleet.note_load(fleet.replica(slot))
    placement = PredictedTtft(100.0, 2.0, routers=1, report_s=0.5)
    assert {placement.choose(fleet, Asked(number, (), 5_000, 0.0)) for number in range(4)} == {0, 1, 2, 3}


def test_the_load_of_a_simulated_replica_predicts_the_simulator() -> None:
    replica = Replica(PROFILE, 0, 0.0)
    for request in range(3):
        replica.submit(0.0, request, 2_000, 10, 0.2)
    predicted_s = predict_ttft(load_of(replica, 10.0), 2_000)
    replica.submit(0.0, 3, 2_000, 10, 0.2)
    first = -1
    while first != 3:
        first, _ = replica.fire()
    assert predicted_s == pytest.approx(replica.time, rel=0.1)


def busy_replica() -> Replica:
    """Returns a replica with a sequence that decodes, a short prompt and a long one in prefill, and no event due."""
    replica = Replica(PROFILE, 0, 0.0)
    replica.submit(0.0, 0, 300, 50, 0.03)
    replica.fire()
    replica.submit(replica.time, 1, 400, 50, 0.04)
    replica.submit(replica.time, 2, 2_000, 50, 0.2)
    return replica


def test_the_load_of_a_simulated_replica_has_each_figure_in_its_field() -> None:
    replica = busy_replica()
    load = load_of(replica, 40.0, routers=3, correction=1.5, overhead_s=0.01)
    assert load == ReplicaLoad(
        running=3,
        waiting=0,
        blocks_used=replica.kv_reserved,
        blocks_total=PROFILE.kv_tokens,
        decoding=1,
        queued_short=(0, 400, 0),
        queued_long=(0, 2_000, 0),
        step_s=PROFILE.step_s,
        prompt_token_s=PROFILE.prompt_token_s,
        sequence_s=PROFILE.sequence_s + PROFILE.kv_s * replica.kv_resident,
        step_tokens=2 * PROFILE.chunk_tokens + 1,
        long_step_tokens=PROFILE.chunk_tokens,
        long_beside_decodes=PROFILE.chunk_tokens,
        prefill_chunk=PROFILE.chunk_tokens,
        max_sequences=PROFILE.max_sequences,
        output_tokens=40.0,
        kv_demand_tokens=replica.kv_reserved + 3 * 40.0 / 2,
        kv_capacity_tokens=PROFILE.kv_tokens,
        long_prompts=1,
        long_at_once=MAX_PARTIAL_PREFILLS,
        lanes=3,
        correction=1.5,
        overhead_s=0.01,
    )


def test_the_step_that_was_scheduled_is_that_of_the_present_batch_after_each_event() -> None:
    replica = busy_replica()
    assert replica.scheduled_step_s == replica.step_now_s > 0
    while replica.outstanding:
        replica.fire()
        assert replica.scheduled_step_s == replica.step_now_s
    assert replica.scheduled_step_s == 0


@pytest.mark.parametrize(("loads", "expected"), [([3.0, 1.0, 2.0, 4.0], [1, 2]), ([1.0, 2.0, 1.0, 3.0], [0, 2])])
def test_the_two_cheapest_replicas_have_the_least_load(loads: list[float], expected: list[int]) -> None:
    fleet = Fleet(PROFILE, len(loads))
    for slot in range(len(loads)):
        fleet.start(0.0)
        fleet.make_ready(slot, 0.0)
    fleet.load[:] = loads
    assert fleet.two_cheapest() == expected
    assert fleet.load.tolist() == loads


def test_of_replicas_with_equal_load_the_lowest_two_are_the_cheapest_on_any_processor() -> None:
    fleet = Fleet(PROFILE, 40)
    for slot in range(40):
        fleet.start(0.0)
        fleet.make_ready(slot, 0.0)
    fleet.load[:5] = 1.0
    assert fleet.two_cheapest() == [5, 6]


@pytest.mark.parametrize("replicas", STORED)
def test_a_run_has_the_figures_that_it_has_always_had(replicas: int) -> None:
    outcome = run(conversations(800, rate=1.5 * replicas), PREDICTED, replicas=replicas, routers=2, report_s=0.2)
    ttft = outcome.first - outcome.trace.arrival
    figures = float(ttft.mean()), float(ttft.max()), float(outcome.end.sum()), outcome.hit_rate
    assert figures == pytest.approx(STORED[replicas], rel=1e-9)


def test_looking_at_a_replica_does_not_change_when_its_requests_end() -> None:
    ends = []
    for looks in (0, 7):
        replica = Replica(PROFILE, 0, 0.0)
        replica.submit(0.0, 0, 100, 400, 0.01)
        replica.submit(0.0, 1, 100, 900, 0.01)
        ended: list[tuple[float, int]] = []
        for look in range(looks):
            if 1.0 + look < replica.due:
                replica.advance(1.0 + look)
        while replica.outstanding:
            _, gone = replica.fire()
            ended += [(replica.time, request) for request in gone]
        ends.append(ended)
    assert [each for _, each in ends[0]] == [each for _, each in ends[1]]
    assert [at for at, _ in ends[0]] == pytest.approx([at for at, _ in ends[1]])


def test_the_command_writes_a_row_for_each_placement(tmp_path: Path) -> None:
    trace, figures = tmp_path / "trace.jsonl", tmp_path / "figures.json"
    rows = [
        {"timestamp": 500 * at, "input_length": 900, "output_length": 20, "hash_ids": [0, at % 5]} for at in range(60)
    ]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    assert main(["--trace", str(trace), "--replicas", "2", "--json", str(figures)]) == 0

    written = {row["placement"]: row for row in json.loads(figures.read_text(encoding="utf-8"))}
    assert set(written) == {*PEERS, PREDICTED, f"{PREDICTED}, 4 routers, 0.5 s"}
    assert all(row["requests"] == 60 and row["unserved"] == 0 for row in written.values())
    assert written[PREDICTED]["hit_rate"] > 0.5
    assert main(["--trace", str(tmp_path / "missing")]) == 2
