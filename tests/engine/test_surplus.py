"""What a tenant asks for beyond its share comes after everything else, and leaves room for those that come."""

from __future__ import annotations

import pytest

from engine.api import Priority
from engine.scheduler.tenant_limits import SHARED_S
from engine.sequence import Sequence, Status
from tests.engine.sequences import finish_step, run, scheduler, sequence, step

HIGH, MIDDLE, LOW = Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH


def surplus(name: str, length: int = 3, priority: Priority = MIDDLE, arrived: float = 0.0, **more: int) -> Sequence:
    return sequence(name, [9] * length, tenant="noisy", priority=priority, arrived=arrived, surplus=True, **more)  # type: ignore[arg-type]


def test_it_starts_after_batch_requests_of_others_and_by_class_among_itself() -> None:
    subject = scheduler(sequences=1)
    subject.add(surplus("surplus batch", priority=LOW))
    subject.add(surplus("surplus interactive", priority=HIGH))
    subject.add(sequence("within", [2] * 3, tenant="noisy", priority=MIDDLE))
    subject.add(sequence("batch", [1] * 3, tenant="quiet", priority=LOW))

    assert run(subject) == ["within", "batch", "surplus interactive", "surplus batch"]


def test_it_rises_with_time_as_others_do() -> None:
    subject = scheduler(sequences=1, ageing_s=10.0)
    subject.add(surplus("old", priority=HIGH))
    subject.add(sequence("new", [1] * 3, tenant="quiet", priority=HIGH, arrived=40.0))

    assert run(subject, now=40.0)[0] == "old"


@pytest.mark.parametrize("priority", [HIGH, LOW])
def test_it_gives_way_at_once_to_any_class_of_others(priority: Priority) -> None:
    subject = scheduler(blocks=6, prefix_caching=False)
    held = surplus("held", 18, HIGH, max_tokens=20)
    subject.add(held)
    for _ in range(6):
        step(subject)
    subject.add(sequence("new", [3] * 8, tenant="quiet", priority=priority, objective=100.0))

    assert "new" in step(subject)
    assert held.status is Status.WAITING


def test_its_prompts_leave_steps_short_while_other_tenants_are_about() -> None:
    subject = scheduler(blocks=200, batch_tokens=120, prefill_chunk=60, sequences=16)
    subject.add(sequence("quiet", [1] * 4, max_tokens=40, tenant="quiet"))
    step(subject)
    for number in range(4):
        subject.add(surplus(f"surplus {number}", 40))
    subject.add(sequence("within", [8] * 40, tenant="noisy"))
    plan = subject.schedule(1.0)
    finish_step(subject, plan)
    lengths = {chunk.sequence.request_id: chunk.length for chunk in plan.chunks}
    assert sum(chunk.length for chunk in plan.chunks if chunk.sequence.tenant == "noisy") == 30
    assert "within" in lengths

    subject.add(sequence("more", [5] * 50, tenant="other"))
    plan = subject.schedule(2.0)
    lengths = {chunk.sequence.request_id: chunk.length for chunk in plan.chunks}
    assert lengths["more"] == 50, "all of it at once"
    assert sum(chunk.length for chunk in plan.chunks if chunk.sequence.tenant == "noisy") == 3


def test_it_has_whole_steps_when_no_one_else_was_there_for_a_while() -> None:
    subject = scheduler(blocks=200, batch_tokens=120, prefill_chunk=60, sequences=16)
    subject.add(sequence("quiet", [1] * 4, max_tokens=1, tenant="quiet"))
    step(subject)
    for number in range(4):
        subject.add(surplus(f"surplus {number}", 40))

    assert subject.schedule(1.0).tokens == 30
    assert subject.schedule(SHARED_S + 1.0).tokens > 100


def test_it_leaves_places_free_for_those_that_come() -> None:
    subject = scheduler(blocks=200, batch_tokens=160, sequences=8)
    subject.add(sequence("quiet", [1] * 4, max_tokens=100, tenant="quiet"))
    for number in range(12):
        subject.add(surplus(f"surplus {number}", 4, max_tokens=100))
    for now in range(20):
        step(subject, float(now))

    assert len(subject.running) == 7
    subject.add(sequence("new", [5] * 4, tenant="other"))
    assert "new" in step(subject, 21.0)
    assert not subject.preemptions


def test_long_prompts_of_it_keep_no_long_prompt_of_others_waiting() -> None:
    subject = scheduler(blocks=200, batch_tokens=120, prefill_chunk=6, partial_prefills=1, sequences=8)
    subject.add(sequence("quiet", [1] * 4, max_tokens=100, tenant="quiet"))
    subject.add(surplus("long surplus", 60))
    for _ in range(2):
        step(subject)
    subject.add(sequence("long", [5] * 20, tenant="other"))

    assert "long" in step(subject)


@pytest.mark.parametrize(
    ("lower", "now", "displaced"), [(MIDDLE, 10.9, False), (MIDDLE, 11.0, True), (LOW, 10.5, False), (LOW, 10.7, True)]
)
def test_a_higher_class_waits_a_part_of_its_time_before_it_displaces(
    lower: Priority, now: float, displaced: bool
) -> None:
    subject = scheduler(blocks=6, prefix_caching=False)
    held = sequence("held", [7] * 18, max_tokens=20, priority=lower)
    subject.add(held)
    for _ in range(6):
        step(subject)
    subject.add(sequence("new", [3] * 8, priority=HIGH, arrived=10.0, objective=14.0))
    names = step(subject, now)

    assert (held.status is Status.WAITING) == displaced == ("new" in names)


@pytest.mark.parametrize("surplus_too", [False, True])
def test_requests_of_a_tenant_with_surplus_start_while_others_keep_all_places_taken(surplus_too: bool) -> None:
    """Those within its share in their turn, and surplus when it has aged into the usual classes."""
    subject = scheduler(blocks=2000, batch_tokens=256, prefill_chunk=8, sequences=16, ageing_s=10.0)
    for number in range(3):
        subject.add(surplus(f"surplus {number}", 8, max_tokens=8))
    subject.add(sequence("within", [9] * 8, max_tokens=8, tenant="noisy", priority=HIGH))
    started: dict[str, float] = {}
    live: dict[int, Sequence] = {}
    for now in range(80):
        for place in range(20):
            if place not in live or live[place].status is Status.ENDED:
                name = f"other {place} {now}"
                live[place] = sequence(name, [place + 1] * 8, max_tokens=8, tenant=f"t{place}", arrived=float(now))
                subject.add(live[place])
        for name in step(subject, float(now)):
            started.setdefault(name, now)

    assert started["within"] < 10
    assert not surplus_too or all(started[f"surplus {number}"] <= 60 for number in range(3))
    assert not subject.preemptions


def test_long_prompts_of_two_other_tenants_start_beside_those_of_surplus() -> None:
    subject = scheduler(blocks=2000, batch_tokens=128, prefill_chunk=16, sequences=16)
    for number in range(2):
        subject.add(surplus(f"surplus {number}", 600))
    step(subject)
    for tenant in ("one", "two"):
        subject.add(sequence(tenant, [3] * 200, tenant=tenant))

    assert {"one", "two"} <= set(step(subject))
