"""More than there is room for: refused at once, with an estimate; what was taken completes."""

from __future__ import annotations

import pytest

from engine import AsyncEngine, Delta, FinishReason, GenerationRequest, OverloadedError, SamplingParams
from engine.api import Priority
from engine.scheduler.admission_rate import MAX_RETRY_S, MIN_RETRY_S, AdmissionRate
from tests.engine.conftest import MakeEngine

SHORT = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
BOUND = 8


def test_ten_times_the_bound_at_once_is_refused_down_to_it_and_the_rest_completes(make_engine: MakeEngine) -> None:
    engine = make_engine(max_waiting=BOUND, max_sequences=4)
    for wave in range(3):
        taken, refused, hints = [], 0, list[float]()
        for n in range(10 * BOUND):
            try:
                engine.add(GenerationRequest(f"{wave}-{n}", (n + 1, 2, 3), SHORT))
                taken.append(f"{wave}-{n}")
            except OverloadedError as refusal:
                refused += 1
                hints.append(refusal.retry_after_s)
        assert (len(taken), refused) == (BOUND, 9 * BOUND)
        assert all(MIN_RETRY_S <= hint <= MAX_RETRY_S for hint in hints)
        ended: dict[str, Delta] = {}
        while engine.has_work:
            ended |= {delta.request_id: delta for delta in engine.step() if delta.finish_reason is not None}

        assert sorted(ended) == sorted(taken)
        assert all(delta.finish_reason is FinishReason.LENGTH for delta in ended.values())
        assert engine.stats().blocks_used == 0
        engine.check_integrity()
    assert engine.metrics().refused == 3 * 9 * BOUND


def test_a_neighbours_backlog_shuts_nobody_out(make_engine: MakeEngine) -> None:
    subject = AsyncEngine(make_engine(max_waiting=BOUND), lambda deltas: None)  # not started: all wait
    for n in range(BOUND):
        subject.submit(GenerationRequest(f"a{n}", (1, 2), SHORT, tenant="a"))
    with pytest.raises(OverloadedError):
        subject.submit(GenerationRequest("a", (1, 2), SHORT, tenant="a"))
    for n in range(BOUND // 2):
        subject.submit(GenerationRequest(f"b{n}", (1, 2), SHORT, tenant="b"))

    with pytest.raises(OverloadedError):
        subject.submit(GenerationRequest("b", (1, 2), SHORT, tenant="b"))
    assert subject.stats().waiting == BOUND + BOUND // 2
    assert subject.metrics().tenants["b"].refused == 1


def test_the_estimate_follows_the_measured_rate() -> None:
    rate = AdmissionRate()
    assert rate.wait_s(50) == MIN_RETRY_S  # nothing measured yet
    now = 0.0
    rate.observe(now, 0, waiting=50)
    for _ in range(100):
        now += 0.5
        rate.observe(now, 2, waiting=50)

    assert rate.wait_s(100) == pytest.approx(25.0, rel=0.01)
    assert rate.wait_s(0) == 0.0
    assert rate.wait_s(10**6) == MAX_RETRY_S


def test_idle_time_does_not_make_an_engine_slow() -> None:
    rate = AdmissionRate()
    rate.observe(0.0, 0, waiting=5)
    rate.observe(1.0, 5, waiting=0)
    rate.observe(1000.0, 1, waiting=5)
    rate.observe(1001.0, 5, waiting=5)

    assert rate.wait_s(10) == pytest.approx(2.0, rel=0.1)


def test_an_answer_that_another_engine_has_begun_is_never_refused(make_engine: MakeEngine) -> None:
    subject = AsyncEngine(make_engine(max_waiting=BOUND), lambda deltas: None)  # not started: all wait
    for n in range(BOUND):
        subject.submit(GenerationRequest(f"a{n}", (1, 2), SHORT))
    with pytest.raises(OverloadedError):
        subject.submit(GenerationRequest("new", (1, 2), SHORT))

    subject.submit(GenerationRequest("moved", (1, 2), SHORT, resume=(3,)))
    assert subject.stats().waiting == BOUND + 1


def test_what_a_router_has_refused_counts_as_arrivals_of_its_class(make_engine: MakeEngine) -> None:
    subject = AsyncEngine(make_engine(), lambda deltas: None)  # not started: all wait
    subject.submit(GenerationRequest("one", (1, 2), SHORT, refused_before=(5, 2, 0)))

    classes = subject._engine.recorder.class_loads()
    assert [(classes[each].arrivals, classes[each].refusals) for each in Priority] == [(5, 5), (2, 2), (0, 0)]
