"""Tenants share the engine by weight (VTC), and nobody saves up or is shut out."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from engine.api import OverloadedError, Priority
from engine.scheduler.fairness import INPUT_COST, OUTPUT_COST, TokenCounters
from engine.scheduler.limits import Limits
from engine.scheduler.queue_limit import QueueState, check_room
from tests.engine.sequences import finish_step, scheduler, sequence, step

WIDE = Limits(batch_tokens=64, prefill_chunk=32, sequences=12)
LIGHT, HEAVY = (20, 10), (60, 40)  # tokens of a typical prompt and answer


def shares(
    weights: dict[str, float], kinds: dict[str, tuple[int, int]], steps: int = 2000, blocks: int = 150
) -> dict[str, float]:
    """Shares in the cost of what is computed, while each tenant always has a backlog; the first steps not counted."""
    numbers = random.Random(5)
    subject = scheduler(blocks=blocks, prefix_caching=False, limits=WIDE, weights=weights)
    served: Counter[str] = Counter()
    names = 0
    for number in range(steps):
        backlog = Counter(one.tenant for one in subject.waiting)
        for tenant, (prompt, answer) in kinds.items():
            for _ in range(20 - backlog[tenant]):
                names += 1
                length, most = (numbers.randint(size // 2, size * 3 // 2) for size in (prompt, answer))
                subject.add(sequence(str(names), [1] * length, most, tenant=tenant, arrived=float(number)))
        plan = subject.schedule(float(number))
        if number > steps // 10:
            for chunk in plan.chunks:
                fresh = min(chunk.end, chunk.sequence.prompt_length) - chunk.start
                served[chunk.sequence.tenant] += max(0, fresh) * int(INPUT_COST) + chunk.samples * int(OUTPUT_COST)
        finish_step(subject, plan)
    return {tenant: served[tenant] / served.total() for tenant in kinds}


@pytest.mark.parametrize("other", [LIGHT, HEAVY], ids=["alike", "unlike"])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_backlogged_tenants_get_shares_by_weight(weight: float, other: tuple[int, int]) -> None:
    found = shares({"b": weight}, {"a": LIGHT, "b": other})

    assert found["b"] / found["a"] == pytest.approx(weight, rel=0.05)


def test_a_flood_does_not_drown_a_trickle() -> None:
    subject = scheduler(blocks=60, limits=WIDE, sequences=4, prefix_caching=False)
    for n in range(200):
        subject.add(sequence(f"flood{n}", [1] * 20, tenant="flood"))
    for _ in range(10):
        step(subject)
    subject.add(sequence("drop", [2] * 20, tenant="trickle", arrived=1.0))
    started = [one.request_id for _ in range(20) for one in plan_and_finish(subject)]

    assert started.index("drop") <= 1


def plan_and_finish(subject):  # type: ignore[no-untyped-def]
    plan = subject.schedule(1.0)
    finish_step(subject, plan)
    return plan.admitted


def test_an_idle_tenant_saves_nothing_up() -> None:
    counters = TokenCounters()
    counters.arrive("busy")
    counters.charge("busy", 1000.0)
    counters.arrive("late")

    assert counters.of("late") == counters.of("busy")


def test_a_tenant_that_left_in_debt_comes_back_in_debt() -> None:
    counters = TokenCounters()
    for name in ("steady", "greedy"):
        counters.arrive(name)
    counters.charge("greedy", 1000.0)
    counters.leave("greedy")
    counters.arrive("greedy")

    assert counters.of("greedy") - counters.of("steady") == 1000.0


def test_after_a_pause_of_all_the_first_starts_where_the_last_left() -> None:
    counters = TokenCounters()
    counters.arrive("last")
    counters.charge("last", 500.0)
    counters.leave("last")
    counters.arrive("new")

    assert counters.of("new") == 500.0


def test_counters_of_tenants_that_left_are_few() -> None:
    counters = TokenCounters()
    counters.arrive("steady")
    for n in range(5000):
        counters.arrive(str(n))
        counters.charge(str(n), n % 3)
        counters.leave(str(n))

    assert len(counters) <= 1025


def test_a_tenant_that_holds_every_row_gives_one_to_a_patient_neighbour() -> None:
    subject = scheduler(blocks=100, limits=WIDE, sequences=3, prefix_caching=False, ageing_s=10.0)
    for n in range(5):
        subject.add(sequence(f"long{n}", [n + 1] * 8, max_tokens=300, tenant="all"))
    for _ in range(5):
        step(subject)
    subject.add(sequence("patient", [9] * 8, max_tokens=4, tenant="none", arrived=1.0))

    assert "patient" not in step(subject, now=10.0)
    assert "patient" in step(subject, now=11.5)
    assert subject.preemptions == 1


def queue(**waiting: int) -> QueueState:
    lines = {(Priority.STANDARD, tenant): count for tenant, count in waiting.items()}
    return QueueState(sum(waiting.values()), lines, 7.0)


@pytest.mark.parametrize(
    ("tenant", "state", "arrivals", "open_"),
    [
        ("a", queue(a=9), {}, True),
        ("a", queue(a=9), {"a": 1}, False),
        ("a", queue(a=5, b=5), {}, False),
        ("c", queue(a=10), {}, True),  # less than an equal share
        ("b", queue(a=10, b=4), {}, True),
        ("b", queue(a=10, b=4), {"b": 1}, False),
        ("c", queue(a=10, b=10), {}, False),  # twice the bound
    ],
)
def test_a_full_queue_still_takes_those_with_less_than_their_share(
    tenant: str, state: QueueState, arrivals: dict[str, int], open_: bool
) -> None:
    if open_:
        check_room(tenant, state, arrivals, 10)
    else:
        with pytest.raises(OverloadedError) as refusal:
            check_room(tenant, state, arrivals, 10)
        assert refusal.value.retry_after_s == 7.0
