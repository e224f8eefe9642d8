"""Scheduler, pool and prefix index: what a step is made of, and who shares blocks with whom."""

from __future__ import annotations

import pytest

from engine.kv.pool import BlockPool, KVIntegrityError, OutOfBlocksError
from engine.sequence import TRANSITIONS, IllegalTransitionError, Status
from tests.engine.sequences import finish_step, run, scheduler, sequence, step


def test_decodes_go_before_prompts() -> None:
    subject = scheduler(blocks=100)
    first, second = sequence("first", [1] * 3), sequence("second", [2] * 40)
    subject.add(first)
    finish_step(subject, subject.schedule(0.0))
    subject.add(second)

    for _ in range(2):
        plan = subject.schedule(0.0)
        finish_step(subject, plan)

        assert [(c.sequence.request_id, c.length) for c in plan.chunks] == [("first", 1), ("second", 6)]


def test_a_prompt_waits_until_all_of_it_fits() -> None:
    subject = scheduler()
    subject.add(sequence("a", [1] * 20))
    subject.add(sequence("b", [2] * 30))

    assert [chunk.sequence.request_id for chunk in subject.schedule(0.0).chunks] == ["a"]


def test_a_long_prompt_waits_for_others_that_take_several_steps_and_short_ones_pass() -> None:
    subject = scheduler(blocks=100, partial_prefills=1)
    for name, length, tenant in (("long", 40, ""), ("longer", 40, ""), ("short", 3, "other")):
        subject.add(sequence(name, [ord(name[-1])] * length, tenant=tenant))

    assert set(step(subject)) == {"long", "short"}
    assert run(subject) == ["longer"]


def test_one_that_does_not_fit_is_passed_a_few_times_only() -> None:
    subject = scheduler(prefix_caching=False, overtakes=3, weights={"other": 0.3})
    subject.add(sequence("holder", [1] * 20, max_tokens=12))
    step(subject)
    subject.add(sequence("big", [2] * 30, max_tokens=1))
    for n in range(10):
        subject.add(sequence(f"small{n}", [3], max_tokens=1, tenant="other"))

    assert run(subject) == ["small0", "small1", "small2", "big", *[f"small{n}" for n in range(3, 10)]]


def test_what_is_reserved_is_never_preempted() -> None:
    subject = scheduler(blocks=6, prefix_caching=False, sequences=4)
    for name in "abc":
        subject.add(sequence(name, [ord(name)] * 5, max_tokens=12, reserve=name == "b"))
    preempted: set[str] = set()
    while subject.running or subject.waiting:
        plan = subject.schedule(0.0)
        preempted |= {victim.request_id for victim in plan.preempted}
        finish_step(subject, plan)

    assert "b" not in preempted


def test_reservations_alone_need_no_preemption() -> None:
    subject = scheduler(blocks=6, prefix_caching=False)
    for n in range(20):
        subject.add(sequence(str(n), [n] * 5, max_tokens=12, reserve=True))

    assert len(run(subject)) == 20
    assert subject.preemptions == 0


@pytest.mark.parametrize(("salt", "shared"), [("tenant", 8), ("", 0), ("tenant2", 0)])
def test_prefixes_are_shared_under_the_same_salt_only(salt: str, shared: int) -> None:
    subject = scheduler()
    prompt = list(range(1, 10))
    subject.add(sequence("a", prompt, max_tokens=1, salt="tenant"))
    run(subject)
    again = sequence("b", prompt, salt=salt)
    subject.add(again)
    subject.schedule(0.0)

    assert again.cached_tokens == shared


def test_a_whole_prompt_is_never_reused() -> None:
    subject = scheduler()
    for name in "ab":
        one = sequence(name, [5] * 8, max_tokens=1)
        subject.add(one)
        run(subject)

    assert one.cached_tokens == 4


@pytest.mark.parametrize("origin", Status)
@pytest.mark.parametrize("target", Status)
def test_status_moves_only_as_the_table_says(origin: Status, target: Status) -> None:
    one = sequence("a", [1])
    one.status = origin
    if target in TRANSITIONS[origin]:
        one.move(target)
        assert one.status is target
    else:
        with pytest.raises(IllegalTransitionError):
            one.move(target)
        assert one.status is origin


def test_tails_are_evicted_before_the_prefixes_they_need() -> None:
    evicted: list[int] = []
    pool = BlockPool(3, evicted.append)
    blocks = pool.allocate(3)
    pool.release(blocks, keep=lambda block: True)
    pool.allocate(2)

    assert evicted == [blocks[2], blocks[1]]


def test_the_pool_refuses_what_would_unbalance_it() -> None:
    pool = BlockPool(2, lambda block: None)
    block = pool.allocate(1)
    with pytest.raises(OutOfBlocksError):
        pool.allocate(2)
    pool.release(block, keep=lambda block: False)
    with pytest.raises(KVIntegrityError):
        pool.release(block, keep=lambda block: False)
    with pytest.raises(KVIntegrityError):
        pool.acquire(block)
    pool.check_integrity()
