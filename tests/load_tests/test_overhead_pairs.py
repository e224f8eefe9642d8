"""Pairs of runs: the order alternates, the interval holds the ratio, and CPU time is that of the right processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.generator.answer import Answer, Problem
from load_tests.overhead import tracing
from load_tests.overhead.pairs import interval, median_ratio, order, ratio
from load_tests.overhead.process_groups import GROUPS, GroupMeter, by_group, group_of
from load_tests.overhead.safety import Half, Pair, cpu_per_1000_tokens, summary, tokens_per_s

SPINNING = (
    "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(flush=True)\ninput()"
)


def half(tokens: int, tokens_per_s: float, router_s: float) -> Half:
    return Half(tokens, tokens_per_s, 10.0, 20.0, {**dict.fromkeys(GROUPS, 0.0), "router": router_s, "generator": 0.5})


def test_the_order_of_runs_is_that_of_abba() -> None:
    assert "".join(each for pair in range(4) for each in order(pair, "A", "B")) == "ABBAABBA"


def test_a_drift_of_the_machine_leaves_the_ratio_as_it_is() -> None:
    speed = iter([100.0, 99.0, 98.0, 97.0, 96.0, 95.0, 94.0, 93.0])
    pairs = []
    for pair in range(4):
        run = {each: next(speed) * (0.9 if each == "checked" else 1.0) for each in order(pair, "checked", "free")}
        pairs.append((run["checked"], run["free"]))

    assert ratio(pairs) == pytest.approx(0.9, abs=1e-9)


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=1, max_size=12))
def test_the_interval_lies_within_the_ratios_of_the_pairs(pairs: list[tuple[float, float]]) -> None:
    low, high = interval(pairs, draws=200)
    each = [first / second for first, second in pairs]

    assert min(each) - 1e-9 <= low <= high <= max(each) + 1e-9


def test_most_intervals_of_noisy_pairs_hold_the_true_ratio() -> None:
    draw = random.Random(3)
    held = 0
    for _ in range(100):
        machine = [draw.uniform(0.7, 1.3) for _ in range(12)]
        pairs = [(0.9 * speed * draw.gauss(1, 0.05), speed * draw.gauss(1, 0.05)) for speed in machine]
        low, high = interval(pairs, draws=400)
        held += low <= 0.9 <= high

    assert 85 <= held <= 100


def test_equal_pairs_have_an_interval_of_no_width() -> None:
    assert interval([(9.0, 10.0)] * 6) == pytest.approx((0.9, 0.9))


@pytest.mark.parametrize(
    ("command", "group"),
    [
        ("ray::ServeReplica:manta:Router\0\0\0", "router"),
        ("ray::ServeReplica:manta:SafetyClassifier", "classifier"),
        ("ray::ServeReplica:manta:SmallModels.classify", "classifier"),
        ("ray::ServeReplica:manta:fast", "engine"),
        ("ray::ProxyActor", "ingress"),
        ("ray::HAProxyManager.update", "ingress"),
        ("/opt/haproxy/bin/haproxy\0-db\0-f\0/tmp/x", "ingress"),
        ("ray::ServeController.listen_for_change", "other"),
        ("/usr/bin/python\0-m\0cluster.local.launch\0--config\0Router", "other"),
        ("", "other"),
    ],
)
def test_the_group_of_a_process_is_told_by_its_program(command: str, group: str) -> None:
    assert group_of(command) == group


def test_time_from_before_is_left_out_and_new_processes_count_in_full() -> None:
    commands = {1: "ray::ServeReplica:manta:Router", 2: "ray::ServeReplica:manta:Router"}

    found = by_group({1: 5.0, 2: 1.0, 3: 0.5}, {1: 4.0}, commands)

    assert found == {**dict.fromkeys(GROUPS, 0.0), "router": 2.0, "other": 0.5}


def test_a_meter_counts_what_a_process_does_after_it_was_made() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SPINNING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        meter = GroupMeter([child.pid])
        assert child.stdout is not None
        child.stdout.readline()
        spent = meter.seconds()
        child.communicate("\n")

    assert 0.1 < spent["other"] < 2
    assert spent["router"] == 0


def test_cpu_time_is_of_all_tokens_of_all_runs() -> None:
    assert cpu_per_1000_tokens([half(1000, 1.0, 0.3), half(3000, 1.0, 0.5)], "router") == pytest.approx(0.2)


def test_tokens_outside_of_the_window_do_not_count() -> None:
    answer = Answer(0, 0.0, 8.0)
    answer.times, answer.tokens = [0.5, 1.0, 2.0, 4.9, 5.0, 8.0], 12
    failed = Answer(0, 0.0, 3.0)
    failed.times, failed.tokens = [2.0], 100
    failed.fail(Problem.STATUS, "")

    assert tokens_per_s([answer, failed], 1.0, 4.0) == pytest.approx(3 * 2 / 4)


def test_the_summary_tells_ratio_interval_and_groups() -> None:
    text = summary([Pair(half(1000, 900.0, 0.4), half(1000, 1000.0, 0.1))] * 6)

    assert "0.900 (95 %: 0.900 to 0.900, 6 pairs)" in text
    assert all(group in text for group in GROUPS)
    assert "0.400" in text


def test_the_summary_counts_answers_that_were_not_good() -> None:
    checked = replace(half(1000, 900.0, 0.4), problems={"status": 2})
    text = summary([Pair(checked, half(1000, 1000.0, 0.1))] * 3)

    assert "FAILED with checks: status, 6" in text
    assert "FAILED without" not in text


def test_of_equal_work_the_speed_is_that_of_all_the_time() -> None:
    cpu_s = {**dict.fromkeys(GROUPS, 0.0), "router": 1.0, "generator": 0.5}
    pairs = [
        tracing.Pair(traced=tracing.Half(1000, 2.0, cpu_s, 9), plain=tracing.Half(1000, 1.0, cpu_s, 9)),
        tracing.Pair(traced=tracing.Half(1000, 2.0, cpu_s, 9), plain=tracing.Half(1000, 2.0, cpu_s, 9)),
        tracing.Pair(traced=tracing.Half(1000, 2.0, cpu_s, 9), plain=tracing.Half(1000, 2.0, cpu_s, 9)),
    ]

    assert ratio(tracing.speeds(pairs)) == pytest.approx(5 / 6)  # 3,000 tokens in 6 s, and in 5 s
    assert median_ratio(tracing.speeds(pairs)) == 1.0
    assert "+0.0%" in tracing.summary(pairs)


def test_the_command_has_a_parser() -> None:
    path = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "load_tests.overhead.safety", "--help"],
        cwd=path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ABBA" in done.stdout


ASKED = {
    "same": False,
    "streams": 256,
    "sample_ratio": 1.0,
    "all": False,
    "interval": 15.0,
    "answers": 3,
    "max_tokens": 64,
    "step_ms": 10,
}


def test_pairs_of_earlier_runs_count_if_their_settings_are_the_same_and_are_refused_otherwise(tmp_path: Path) -> None:
    half = {"tokens": 1000, "seconds": 2.0, "cpu_s": dict.fromkeys(GROUPS, 0.1), "received": 9}
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({"settings": ASKED, "pairs": [{"traced": half, "plain": half}]}), encoding="utf-8")

    assert len(tracing.read(path, ASKED)) == 1
    for name in ASKED:
        with pytest.raises(ValueError, match="other settings"):
            tracing.read(path, ASKED | {name: 5})
    path.write_text("[]", encoding="utf-8")  # of a release that wrote no settings
    with pytest.raises(ValueError, match="other settings"):
        tracing.read(path, ASKED)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    half = tracing.Half(1000, 2.0, dict.fromkeys(GROUPS, 0.1), 9)
    path = tmp_path / "new" / "pairs.json"
    tracing.write(path, ASKED, [tracing.Pair(half, half)])
    assert tracing.read(path, ASKED) == [tracing.Pair(half, half)]


def test_a_run_in_which_metrics_are_not_pushed_does_not_measure_what_they_cost() -> None:
    tracing.check_length(15.0, ASKED | {"all": True})
    tracing.check_length(1.0, ASKED)
    with pytest.raises(RuntimeError, match="more --answers"):
        tracing.check_length(14.0, ASKED | {"all": True})


def test_a_run_whose_telemetry_did_not_arrive_does_not_count() -> None:
    tracing.check_received(5, 0, ASKED)
    tracing.check_received(0, 0, ASKED | {"same": True})
    for few in (ASKED | {"sample_ratio": 0.0}, ASKED | {"sample_ratio": 0.01}):  # a request may be slow, or kept
        tracing.check_received(0, 0, few)
        tracing.check_received(5, 0, few)
    for traced, plain, asked in ((0, 0, ASKED), (5, 5, ASKED), (5, 0, ASKED | {"same": True})):
        with pytest.raises(RuntimeError, match="bytes"):
            tracing.check_received(traced, plain, asked)


def test_the_receiver_counts_the_bytes_of_exports() -> None:
    with tracing.receiver() as endpoint:
        for size in (3, 400_000):
            assert httpx.post(endpoint, content=b"x" * size).status_code == 200
        assert tracing.received(endpoint) == 400_003
