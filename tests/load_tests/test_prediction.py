"""The load test of predictions: its loads, its figures, and one short run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.api import Priority, SamplingParams
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence
from load_tests.prediction.__main__ import main, summary
from load_tests.prediction.loads import LOADS, arrivals
from load_tests.prediction.stretched_engine import PassTimes, stretched_to
from load_tests.simulation.profile import PROFILES


@pytest.mark.parametrize("name", LOADS)
def test_requests_come_at_the_rate_of_the_load_and_the_same_again(name: str) -> None:
    load = LOADS[name]
    requests = list(arrivals(load, 200.0, seed=1))
    assert len(requests) == pytest.approx(200 * load.rate, rel=0.1)
    assert [each.at for each in requests] == sorted(each.at for each in requests)
    assert requests == list(arrivals(load, 200.0, seed=1))
    assert (Priority.BATCH in {each.priority for each in requests}) == (load.batch_share > 0)
    least = load.prefix_words + load.prompt_words[0]
    assert all(len(each.prompt.split()) >= least for each in requests)


def test_errors_are_shares_of_the_measured_time() -> None:
    result = summary("chat", [(1.0, 1.0), (1.2, 1.0), (0.5, 1.0)])
    assert (result.requests, result.median_ratio) == (3, 1.0)
    assert result.median_error == pytest.approx(0.2)


def test_a_short_run_predicts_and_writes_its_figures(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    assert main(["--load", "chat", "--seconds", "3", "--warm-up", "0.5", "--json", str(figures)]) == 0
    (result,) = json.loads(figures.read_text(encoding="utf-8"))
    assert result["load"] == "chat"
    assert result["requests"] > 1
    assert 0 < result["ttft_p50_s"] <= result["ttft_p99_s"]


def test_passes_take_the_longer_of_weights_and_tokens_and_what_attention_adds() -> None:
    times = PassTimes.of(PROFILES["70b-h100x2"])
    sequence = Sequence("one", [2] * 2_000, 2_000, SamplingParams(), "", 0, 8)

    assert times.pass_s([Chunk(sequence, 0, 1)]) == pytest.approx(0.013, rel=0.01)
    assert times.pass_s([Chunk(sequence, 1_999, 1)] * 100) == pytest.approx(0.013 + 100 * 2_000 * 55e-9, rel=0.01)
    assert times.pass_s([Chunk(sequence, 0, 500)] * 2) == pytest.approx(1_000 / 14_400 + 2 * 500 * 250 * 55e-9)


def test_an_engine_is_stretched_to_the_times_that_it_is_given() -> None:
    engine = stretched_to(PassTimes(0.05, 0.0, 0.0)).from_pretrained("deployments/models/fast", dtype="float32")
    began = time.monotonic()
    (answer,) = engine.generate(["one"], SamplingParams(max_tokens=4, ignore_eos=True))
    took_s = time.monotonic() - began
    engine.close()

    assert len(answer.token_ids) == 4
    assert took_s >= 4 * 0.05
