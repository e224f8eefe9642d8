"""Traces of the simulator: public formats, scaling, and synthetic shapes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from load_tests.simulation.profile import PROFILES
from load_tests.simulation.synthetic import SHAPES, synthetic
from load_tests.simulation.trace import COPY_JITTER_S, Trace, TraceError, build, cut, read_trace, scaled
from load_tests.simulation.trace import with_batch_share as marked
from load_tests.simulation.workload import busy_replicas, cached_tokens

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:48.0000000,7,0
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}
{"timestamp": 2500, "input_length": 1030, "output_length": 7, "hash_ids": [0, 1, 3]}
"""
TRACES = Path("/work/shared/data/traces")


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_azures_columns_become_a_trace_sorted_by_time(tmp_path: Path, suffix: str) -> None:
    trace = read_trace(write(tmp_path / f"a{suffix}", AZURE))

    assert trace.arrival.tolist() == pytest.approx([0.0, 1.31941, 4.314579], abs=1e-5)
    assert trace.prompt.tolist() == [374, 7, 396]
    assert trace.output.tolist() == [44, 1, 109]  # an empty answer has an end too
    assert trace.duration == 5.0
    assert trace.chain(0) == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".gz"])
def test_mooncakes_lines_become_a_trace_with_prefixes(tmp_path: Path, suffix: str) -> None:
    trace = read_trace(write(tmp_path / f"m{suffix}", MOONCAKE))

    assert trace.arrival.tolist() == [0.0, 2.5]
    assert [trace.chain(request) for request in range(2)] == [(0, 1, 2), (0, 1, 3)]
    assert cached_tokens(trace).tolist() == [0, 1024]


def test_of_a_prompt_that_is_all_cached_one_token_is_computed() -> None:
    trace = build("again", [0.0, 1.0], [1024, 1024], [1, 1], [(1, 2), (1, 2)])

    assert cached_tokens(trace).tolist() == [0, 1023]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no"),
        ("a,b\n1,2\n", "neither"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,2\n", ":2:"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,1,\n", ":2:"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"timestamp": 0}\n', ":2:"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}\n', "not a number"),
        ("{]\n", ":1:"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        read_trace(write(tmp_path / "bad.txt", text))


def test_a_damaged_archive_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(AZURE.encode())[:40])

    with pytest.raises(TraceError):
        read_trace(path)


def prefixed() -> Trace:
    chains = [(0, 2 * request + 1, 2 * request + 2) if request % 2 else (0, 1, 2) for request in range(400)]
    return build("prefixed", np.linspace(0, 399, 400).tolist(), [1200] * 400, [10] * 400, chains)


@pytest.mark.parametrize("factor", [0.25, 2.0, 3.5])
def test_a_scaled_trace_has_its_rate_lengths_and_hits(factor: float) -> None:
    trace = prefixed()

    more = scaled(trace, factor, seed=1)

    assert len(more) == pytest.approx(factor * len(trace), rel=0.15)
    assert more.duration == trace.duration
    assert (np.diff(more.arrival) >= 0).all()
    assert 0 <= more.arrival[0] <= more.arrival[-1] <= more.duration
    assert set(more.prompt.tolist()) == {1200}
    assert float(cached_tokens(more).mean()) == pytest.approx(float(cached_tokens(trace).mean()), rel=0.1)


def test_copies_share_system_prompts_alone_and_stay_near() -> None:
    trace = build("two", [0.0, 100.0, 200.0], [600] * 3, [1] * 3, [(0, 1), (0, 2), (0, 3)])
    more = scaled(build("more", np.arange(300.0).tolist(), [600] * 300, [1] * 300, [(0, n + 1) for n in range(300)]), 2)

    assert scaled(trace, 1) is trace
    chains = [more.chain(request) for request in range(len(more))]
    assert len({chain[0] for chain in chains}) == 1
    assert len({chain[1] for chain in chains}) == 600
    assert more.row is not None
    assert np.abs(more.arrival - more.row).max() <= COPY_JITTER_S


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_factor_must_be_positive(factor: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        scaled(prefixed(), factor)


@pytest.mark.parametrize("shape", SHAPES)
def test_synthetic_traces_have_their_rate_and_depend_on_the_seed(shape: str) -> None:
    trace = synthetic(shape, rate=20, duration=2400, seed=4)

    assert len(trace) / 2400 == pytest.approx(20, rel=0.1)
    assert trace.duration == 2400
    assert (np.diff(trace.arrival) >= 0).all()
    again, other = synthetic(shape, 20, 2400, seed=4), synthetic(shape, 20, 2400, seed=5)
    assert (trace.arrival == again.arrival).all()
    assert (trace.prompt == again.prompt).all()
    assert not np.array_equal(trace.arrival, other.arrival)


def test_the_square_wave_has_three_times_the_rate_in_its_second_half() -> None:
    trace = synthetic("square", rate=40, duration=1200)

    low, high = (int(((trace.arrival >= begin) & (trace.arrival < begin + 600)).sum()) for begin in (0, 600))
    assert high / low == pytest.approx(3, rel=0.1)


def test_a_regime_change_turns_long_prompts_into_long_answers() -> None:
    trace = synthetic("regime", rate=40, duration=600)
    before, after = trace.arrival < 300, trace.arrival >= 300

    assert float(trace.prompt[before].mean()) > 2.5 * float(trace.prompt[after].mean())
    assert 2.5 * float(trace.output[before].mean()) < float(trace.output[after].mean())


def test_a_part_of_a_trace_ends_where_it_is_cut() -> None:
    trace = cut(prefixed(), 100.5)

    assert len(trace) == 101
    assert trace.duration == 100.5
    with pytest.raises(ValueError, match="no request"):
        cut(trace, 0.0)


def test_a_share_of_requests_is_batch_work() -> None:
    priority = marked(prefixed(), 0.3, seed=1).priority

    assert priority is not None
    assert float(priority.mean()) == pytest.approx(0.3, abs=0.08)


def test_busy_replicas_are_the_work_that_arrives() -> None:
    profile = PROFILES["70b-h100x2"]
    trace = build("work", [5.0, 15.0], [14_400, 28_800], [1, 1])

    busy = busy_replicas(trace, profile, 10.0)

    assert busy.tolist() == pytest.approx([0.1, 0.2], rel=0.01)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the public traces are not on this machine")
def test_the_public_traces_are_read_whole() -> None:
    azure = read_trace(TRACES / "azure_llm_2023_conv.csv.gz")
    mooncake = read_trace(TRACES / "mooncake_conversation.jsonl.gz")

    assert (len(azure), len(mooncake)) == (19_366, 12_031)
    assert float(azure.prompt.mean()) == pytest.approx(1154.7, abs=0.1)
    assert float(mooncake.prompt.mean()) == pytest.approx(12035.1, abs=0.1)
    assert float(cached_tokens(mooncake).sum()) / float(mooncake.prompt.sum()) == pytest.approx(0.37, abs=0.03)
