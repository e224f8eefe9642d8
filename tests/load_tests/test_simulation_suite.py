"""The suite of traces, the ablations, and the stub engine of the comparison with reality."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cluster.autoscaling import tier_policy
from cluster.autoscaling.signals.backlog import backlog
from engine.api import Delta, FinishReason, GenerationRequest, SamplingParams
from load_tests.simulation import ablations
from load_tests.simulation.ablations import ABLATIONS, Faults, Prepared, without_signal
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.reality.__main__ import application, most_changes, slice_of, square
from load_tests.simulation.reality.batching_stub import BatchingStub
from load_tests.simulation.reality.probes import Probes, lone_ttft_s
from load_tests.simulation.reality.setup import SETUPS, Setup
from load_tests.simulation.suite import Case, pareto, rows, run_case

TINY = Case("steady", 6.0, 120.0)


def test_a_case_has_the_measures_of_each_policy_and_a_row_of_the_table() -> None:
    result = run_case(TINY, Path("unused"), 0, oracle_runs=2, policies=["manta", "keda"])
    assert set(result["runs"]) == {"manta", "admitted", "at once", "keda", "oracle"}
    json.dumps(result)
    table = rows([{**result, "runs": {name: result["runs"][name] for name in ("manta", "keda")}}])
    assert "| steady | " in table
    assert table.count("%") == 2
    assert len(pareto([result]).axes) == 4


def test_an_ablation_is_off_only_while_it_is_entered() -> None:
    signals = tier_policy.SIGNALS
    with without_signal(backlog).off():
        assert len(tier_policy.SIGNALS) == len(signals) - 1
        assert backlog not in tier_policy.SIGNALS
    assert tier_policy.SIGNALS is signals


def test_each_ablation_runs_and_leaves_the_policy_as_it_was() -> None:
    prepared = Prepared.of(TINY, Faults(speed=1.5), Path("unused"), 0)
    whole = prepared.run(ABLATIONS[0])
    for ablation in ABLATIONS[1:]:
        assert 0 <= prepared.run(ablation)["attainment"] <= 1
    assert prepared.run(ABLATIONS[0]) == whole
    assert len({each.name for each in ABLATIONS}) == len(ABLATIONS)
    assert "| nothing |" in ablations.rows({"nothing": {"azure": whole}})


PROFILE = ReplicaProfile("fast", "test", 1, 10_000, 0.005, 0.0, 0.0, 200, 4_000, 2)


def test_the_stub_takes_the_time_of_its_profile_and_runs_the_oldest_requests() -> None:
    deltas: list[tuple[float, Delta]] = []
    engine = BatchingStub(lambda found: deltas.extend((time.monotonic(), each) for each in found), PROFILE)
    for name in ("a", "b", "c"):
        engine.submit(GenerationRequest(name, tuple([7] * 300), SamplingParams(max_tokens=3)))
    assert (engine.load().running, engine.load().waiting, engine.load().queued_prompt_tokens) == (2, 1, 900)
    began = time.monotonic()
    engine.start()
    while sum(each.finish_reason is FinishReason.LENGTH for _, each in deltas) < 3:
        assert time.monotonic() < began + 5, deltas
        time.sleep(0.001)
    engine.close()
    first = {name: next(at for at, each in deltas if each.request_id == name) - began for name in "abc"}
    assert [each.request_id for _, each in deltas if each.finish_reason].index("c") == 2
    assert first["a"] >= 2 * 0.02  # 300 tokens are two steps of a chunk
    assert first["b"] >= 0.06
    assert first["c"] >= 0.09  # 900 tokens, at 10,000/s
    assert {name: sum(each.request_id == name for _, each in deltas) for name in "abc"} == {"a": 3, "b": 3, "c": 3}


def test_a_square_wave_has_edges_between_its_rates() -> None:
    trace, edges = square(60.0, 20.0, 0)
    assert edges == [20.0, 40.0]
    low, high = (((begin <= trace.arrival) & (trace.arrival < begin + 20)).sum() for begin in (0, 20))
    assert high > 2 * low
    assert trace.duration == 60.0


def test_a_slice_of_a_trace_fits_the_stub(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    lines = [f"2023-11-16 18:{n // 60:02}:{n % 60:02}.0000000,{400 * (n % 9)},{20 + n}" for n in range(300)]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n")
    trace = slice_of(path, 30.0, 0)
    assert trace.duration == 30.0
    assert trace.prompt.max() <= 900
    assert trace.output.max() <= 80


def test_the_changes_of_a_square_wave_are_counted_from_edge_to_edge() -> None:
    targets = [(0.0, 2), (61.0, 3), (62.0, 4), (63.0, 3), (125.0, 2)]
    assert most_changes(targets, [60.0, 120.0, 180.0]) == 3
    assert most_changes(targets, [120.0]) == 1
    assert most_changes(targets, [200.0]) == 0


def test_the_profile_of_a_real_replica_is_that_of_the_lone_requests_that_it_got() -> None:
    overhead_s, step_s, sequence_s, token_s = 0.03, 0.02, 0.001, 0.0005
    ttft_s = {prompt: overhead_s + token_s * prompt for prompt in (200, 350, 500)}
    probes = Probes(ttft_s, {1: step_s + sequence_s, 4: step_s + 4 * sequence_s})

    profile = probes.profile("embedded")

    assert [profile.step_s, profile.sequence_s] == pytest.approx([step_s, sequence_s])
    assert lone_ttft_s(profile, 500) == pytest.approx(500 * token_s)
    assert probes.overhead_s(profile) == pytest.approx(overhead_s)


def test_a_lone_request_takes_the_time_of_its_prompt() -> None:
    assert lone_ttft_s(PROFILE, 150) == pytest.approx(0.015)


def test_the_prompts_of_the_embedded_model_fit_its_context() -> None:
    setup = SETUPS["embedded"]
    assert setup.max_prompt + setup.max_output <= 1024


@pytest.mark.parametrize("own_nodes", [False, True])
@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_the_application_of_the_comparison_is_a_valid_config(own_nodes: bool, setup: Setup) -> None:
    from cluster.config import MantaConfig

    config = MantaConfig.model_validate(application(own_nodes, setup))
    assert config.autoscaling is not None
    assert {name: (tier.min, tier.max) for name, tier in config.autoscaling.tiers.items()} == {
        "fast": (setup.least, setup.most)
    }
    assert bool(config.tiers[0].resources) == own_nodes
