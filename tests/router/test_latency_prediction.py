"""Predicted latencies: what makes them longer, what shorter, and that they are numbers whatever a replica reports."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Priority
from router.latency_prediction import predict_ttft, work_off
from router.ports.replica_load import ReplicaLoad
from tests.router.replica_loads import IDLE, loads, queues

prompts = st.integers(0, 100_000)
priorities = st.sampled_from(Priority)


@given(loads, prompts, prompts, priorities)
def test_a_prediction_is_finite_and_not_negative(
    load: ReplicaLoad, prompt: int, matched: int, priority: Priority
) -> None:
    ttft_s = predict_ttft(load, prompt, matched, priority)
    assert isfinite(ttft_s)
    assert ttft_s >= 0


@given(loads, prompts, st.integers(1, 1_000), priorities, priorities, st.booleans())
def test_more_queued_tokens_never_make_it_shorter(
    load: ReplicaLoad, prompt: int, more: int, of: Priority, priority: Priority, long: bool
) -> None:
    queue = list((load.queued_long if long else load.queued_short) or (0, 0, 0))
    queue[of - Priority.INTERACTIVE] += more
    longer = replace(load, queued_long=tuple(queue)) if long else replace(load, queued_short=tuple(queue))
    assert predict_ttft(load, prompt, 0, priority) <= _above(predict_ttft(longer, prompt, 0, priority))


@given(loads, prompts, st.integers(1, 1_000), priorities)
def test_a_longer_prompt_never_makes_it_shorter(load: ReplicaLoad, prompt: int, more: int, priority: Priority) -> None:
    assert predict_ttft(load, prompt, 0, priority) <= _above(predict_ttft(load, prompt + more, 0, priority))


@given(loads, prompts, prompts, priorities)
def test_a_cached_prefix_never_makes_it_longer(
    load: ReplicaLoad, prompt: int, matched: int, priority: Priority
) -> None:
    assert predict_ttft(load, prompt, matched, priority) <= predict_ttft(load, prompt, 0, priority) * (1 + 1e-9)


@given(loads, prompts)
def test_a_higher_class_never_waits_longer(load: ReplicaLoad, prompt: int) -> None:
    first, second, third = (predict_ttft(load, prompt, 0, priority) for priority in Priority)
    assert first <= second * (1 + 1e-9)
    assert second <= third * (1 + 1e-9)


def _above(prediction_s: float) -> float:
    """Room for rounding."""
    return prediction_s * (1 + 1e-9)


def test_an_idle_replica_takes_a_step_for_a_short_prompt() -> None:
    assert predict_ttft(IDLE, 100) == pytest.approx(0.01 + 0.1)


def test_tokens_that_are_free_add_nothing() -> None:
    roofline = replace(IDLE, free_prompt_tokens=8)  # 8 ms of the 10 ms of a step
    assert predict_ttft(roofline, 5) == pytest.approx(0.01)
    assert predict_ttft(roofline, 100) == pytest.approx(0.01 + 0.092)
    assert predict_ttft(replace(IDLE, free_prompt_tokens=5_000), 100) == pytest.approx(0.1), "the longer of two"


def test_what_is_cached_is_not_computed() -> None:
    assert predict_ttft(IDLE, 100, matched_tokens=60) == pytest.approx(0.01 + 0.04)


def test_a_queue_of_lower_classes_delays_by_the_step_at_work_alone() -> None:
    busy = replace(IDLE, queued_short=(0, 0, 1_000))
    assert predict_ttft(busy, 100, priority=Priority.STANDARD) == pytest.approx(0.11 + 0.01 / 2)
    assert predict_ttft(busy, 100, priority=Priority.BATCH) == pytest.approx(0.01 + 1.1 + 0.01 / 2)


def test_short_prompts_pass_long_ones() -> None:
    busy = replace(IDLE, running=5, decoding=4, queued_long=(0, 10_000, 0))
    assert predict_ttft(busy, 100) < 2.5
    assert predict_ttft(busy, 1_000) > 10


def test_long_prompts_that_share_steps_delay_each_other_by_their_own_length_at_most() -> None:
    alone = predict_ttft(IDLE, 1_000)
    beside = replace(IDLE, running=1, queued_long=(0, 50_000, 0), long_prompts=1, long_at_once=2)
    assert predict_ttft(beside, 1_000) < 2.2 * alone
    assert predict_ttft(replace(beside, long_at_once=1), 1_000) > 20 * alone
    assert predict_ttft(replace(beside, long_prompts=2), 1_000) > 20 * alone


def test_a_long_prompt_beside_decodes_takes_the_steps_that_it_is_allowed() -> None:
    busy = replace(IDLE, running=4, decoding=4)
    step_s = 0.01 + 4 * 0.0005
    assert predict_ttft(busy, 1_024) == pytest.approx(step_s / 2 + 32 * step_s + 1.024)


def test_a_step_that_has_just_begun_delays_more_than_one_that_is_nearly_over() -> None:
    busy = replace(IDLE, running=4, decoding=4)  # steps of 12 ms
    begun, nearly, unknown = (predict_ttft(replace(busy, step_age_s=age), 100) for age in (0.0, 0.011, -1.0))
    assert begun - nearly == pytest.approx(0.011)
    assert begun - unknown == pytest.approx(0.006)
    assert predict_ttft(replace(busy, step_age_s=5.0), 100) == unknown


def test_a_full_batch_makes_the_next_one_wait_for_a_place() -> None:
    full = replace(IDLE, running=64, decoding=64)
    answer_s = 100 * (0.01 + 64 * 0.0005)
    assert predict_ttft(full, 10) > predict_ttft(replace(full, max_sequences=128), 10) + 0.9 * answer_s / 64


def test_a_full_cache_makes_a_prompt_wait_for_room() -> None:
    tight = replace(IDLE, running=4, decoding=4, blocks_used=99, blocks_total=100)
    assert predict_ttft(tight, 5_000) > predict_ttft(replace(tight, blocks_used=50), 5_000)


def test_a_replica_that_reports_no_steps_has_its_own_estimate() -> None:
    assert predict_ttft(ReplicaLoad(running=3, waiting=2, wait_s=1.5), 1_000) == 1.5


def test_the_correction_scales_the_time_to_the_first_token() -> None:
    assert predict_ttft(replace(IDLE, correction=2.0), 100) == pytest.approx(2 * predict_ttft(IDLE, 100))


@given(loads, queues, queues, st.floats(0, 1e6))
def test_work_is_only_taken_from_queues(
    load: ReplicaLoad, short: tuple[int, ...], long: tuple[int, ...], seconds: float
) -> None:
    short_left, long_left = list(short), list(long)
    work_off(load, short_left, long_left, seconds)
    assert all(0 <= after <= before for after, before in zip(short_left + long_left, short + long, strict=True))
    short_sooner, long_sooner = list(short), list(long)
    work_off(load, short_sooner, long_sooner, seconds / 2)
    assert sum(short_sooner + long_sooner) >= sum(short_left + long_left)
