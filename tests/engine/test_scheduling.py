"""Pool, prefix index and scheduler together, driven at random against a model of what every KV slot holds."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.api import SamplingParams
from engine.kv.cache import KVCache
from engine.kv.pool import BlockPool, KVIntegrityError, OutOfBlocksError
from engine.scheduler.plan import Plan
from engine.scheduler.scheduler import Limits, Scheduler
from engine.sequence import TRANSITIONS, IllegalTransitionError, Sequence, Status

BLOCKS, BLOCK_SIZE = 12, 4
LIMITS = Limits(batch_tokens=16, prefill_chunk=6, sequences=5)


def sequence(name: str, tokens: list[int], max_tokens: int = 8, salt: str = "") -> Sequence:
    return Sequence(name, list(tokens), len(tokens), SamplingParams(), salt, 0, max_tokens)


def scheduler(blocks: int = BLOCKS, limits: Limits = LIMITS, prefix_caching: bool = True) -> Scheduler:
    return Scheduler(KVCache(blocks, BLOCK_SIZE, prefix_caching), limits)


def finish_step(subject: Scheduler, plan: Plan) -> None:
    """What the engine does with a plan, every sampled token being 1."""
    for chunk in plan.chunks:
        subject.computed(chunk)
        if chunk.end == len(chunk.sequence.tokens):
            chunk.sequence.tokens.append(1)
            if chunk.sequence.generated >= chunk.sequence.max_tokens:
                subject.remove(chunk.sequence)


class SchedulerMachine(RuleBasedStateMachine):
    """Arrivals, aborts and steps in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = scheduler()
        self.slots: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = {}
        self.names = 0

    @rule(
        tokens=st.lists(st.integers(1, 2), min_size=1, max_size=30),
        max_tokens=st.integers(1, 18),
        salt=st.sampled_from(["", "other"]),
    )
    def arrive(self, tokens: list[int], max_tokens: int, salt: str) -> None:
        self.names += 1
        self.subject.add(sequence(str(self.names), tokens, max_tokens, salt))

    @rule(pick=st.integers(0, 100))
    def abort(self, pick: int) -> None:
        live = [*self.subject.running, *self.subject.waiting]
        if live:
            victim = live[pick % len(live)]
            self.subject.remove(victim)
            assert victim.blocks == []

    @rule()
    def step(self) -> None:
        oldest = next(iter([*self.subject.running, *self.subject.waiting]), None)
        plan = self.subject.schedule()
        assert plan.tokens <= LIMITS.batch_tokens
        assert len({id(chunk.sequence) for chunk in plan.chunks}) == len(plan.chunks)
        assert oldest is None or any(chunk.sequence is oldest for chunk in plan.chunks)  # progress
        for chunk in plan.chunks:
            assert 1 <= chunk.length <= LIMITS.prefill_chunk
            self.write(chunk.sequence, chunk.start, chunk.end)
        for chunk in plan.chunks:
            for position in range(chunk.end):
                assert self.slots[self.slot(chunk.sequence, position)] == self.content(chunk.sequence, position)
        finish_step(self.subject, plan)

    def write(self, subject: Sequence, start: int, end: int) -> None:
        for position in range(start, end):
            self.slots[self.slot(subject, position)] = self.content(subject, position)

    def slot(self, subject: Sequence, position: int) -> tuple[int, int]:
        return subject.blocks[position // BLOCK_SIZE], position % BLOCK_SIZE

    def content(self, subject: Sequence, position: int) -> tuple[str, tuple[int, ...]]:
        return subject.cache_salt, tuple(subject.tokens[: position + 1])

    @invariant()
    def books_balance(self) -> None:
        self.subject.cache.check_integrity()
        held = {block for one in self.subject.running for block in one.blocks}
        assert self.subject.cache.pool.used == len(held)
        assert len(self.subject.running) <= LIMITS.sequences
        assert all(not one.blocks for one in self.subject.waiting)

    def teardown(self) -> None:
        for _ in range(10_000):
            if not self.subject.running and not self.subject.waiting:
                break
            self.step()
        assert self.subject.cache.pool.used == 0


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_decodes_go_before_prompts() -> None:
    subject = scheduler(blocks=100)
    first, second = sequence("first", [1] * 3), sequence("second", [2] * 40)
    subject.add(first)
    finish_step(subject, subject.schedule())
    subject.add(second)

    for _ in range(2):
        plan = subject.schedule()
        finish_step(subject, plan)

        assert [(c.sequence.request_id, c.length) for c in plan.chunks] == [("first", 1), ("second", 6)]


def test_a_prompt_waits_until_all_of_it_fits() -> None:
    subject = scheduler()
    subject.add(sequence("a", [1] * 20))
    subject.add(sequence("b", [2] * 30))

    assert [chunk.sequence.request_id for chunk in subject.schedule().chunks] == ["a"]


def test_the_last_to_arrive_gives_way_first() -> None:
    subject = scheduler(blocks=5)
    for name in "ab":
        subject.add(sequence(name, [ord(name)] * 7, max_tokens=9))
    preempted = []
    for _ in range(40):
        plan = subject.schedule()
        preempted += [victim.request_id for victim in plan.preempted]
        finish_step(subject, plan)

    assert preempted == ["b"]
    assert not subject.waiting
    assert not subject.running


@pytest.mark.parametrize(("salt", "shared"), [("tenant", 8), ("", 0), ("tenant2", 0)])
def test_prefixes_are_shared_under_the_same_salt_only(salt: str, shared: int) -> None:
    subject = scheduler()
    prompt = list(range(1, 10))
    subject.add(sequence("a", prompt, max_tokens=1, salt="tenant"))
    while subject.running or subject.waiting:
        finish_step(subject, subject.schedule())
    again = sequence("b", prompt, salt=salt)
    subject.add(again)
    subject.schedule()

    assert again.cached_tokens == shared


def test_a_whole_prompt_is_never_reused() -> None:
    subject = scheduler()
    for name in "ab":
        one = sequence(name, [5] * 8, max_tokens=1)
        subject.add(one)
        while subject.running or subject.waiting:
            finish_step(subject, subject.schedule())

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
