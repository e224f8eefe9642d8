"""Scheduler, queue, block pool and prefix index driven at random against a model of what every KV slot holds.

A few thousand steps belong to the suite; ``MANTA_LONG_TESTS=1`` makes it more than 100,000.
"""

from __future__ import annotations

import os
from ctypes import c_int32
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.api import Priority
from engine.scheduler.prefill_budget import PrefillBudget
from engine.scheduler.queue import level
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Load, Plan
from engine.scheduler.tenant_limits import CROWD, CROWD_DIVISOR, STEP_TOKENS_DIVISOR
from engine.sequence import Sequence, Status
from tests.engine.sequences import BLOCK_SIZE, LIMITS, finish_step, scheduler, sequence

Slot = tuple[int, int, int]  # group, block, place in it
Content = tuple[str, tuple[int, ...]]  # salt, and tokens up to the one whose KV it is
NOTHING: Content = ("", ())

LONG = bool(os.environ.get("MANTA_LONG_TESTS"))
AGEING_S = 20.0
TENANTS = ("one", "two", "three")
MAX_WAITING = 20
MAX_TOKENS = 18
MAX_PROMPT_TOKENS = 30
PART = LIMITS.batch_tokens // STEP_TOKENS_DIVISOR  # tokens of a step for a tenant that crowds the engine

# What the queue may hold before a sequence, times the steps each needs, computed again each time somebody is preempted.
MAX_STEPS = (MAX_WAITING + LIMITS.sequences) * (MAX_TOKENS + MAX_PROMPT_TOKENS) * 4


class SchedulerMachine(RuleBasedStateMachine):
    """Arrivals of all kinds, aborts, forks, faults, time and steps in any order."""

    windows: ClassVar[tuple[int | None, ...]] = (None,)  # of the groups of layers
    blocks: ClassVar[int] = 12  # of each

    def __init__(self) -> None:
        super().__init__()
        self.subject: Scheduler = scheduler(
            blocks=self.blocks,
            windows=self.windows,
            ageing_s=AGEING_S,
            cooldown=4,
            overtakes=3,
            decode_slowdown=2.0,
            weights={"two": 2.0},
        )
        self.slots: dict[Slot, Content] = {}
        self.names = 0
        self.now = 0.0
        self.steps = 0
        self.beams: list[Sequence] = []  # computed as far as they go, in blocks of their own or parked
        self.rose: dict[tuple[str, int], int] = {}  # the step at which a waiting sequence reached the highest level

    @precondition(lambda self: len(self.subject.waiting) < MAX_WAITING)
    @rule(
        tokens=st.lists(st.integers(1, 2), min_size=1, max_size=MAX_PROMPT_TOKENS),
        max_tokens=st.integers(1, MAX_TOKENS),
        salt=st.sampled_from(["", "other"]),
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from(Priority),
        patience=st.none() | st.floats(0.1, 50.0),
        reserve=st.booleans(),
        slo=st.none() | st.floats(0.1, 50.0),
        surplus=st.sampled_from([False, False, False, True]),
    )
    def arrive(
        self,
        tokens: list[int],
        max_tokens: int,
        salt: str,
        tenant: str,
        priority: Priority,
        patience: float | None,
        reserve: bool,
        slo: float | None,
        surplus: bool,
    ) -> None:
        self.names += 1
        deadline = None if patience is None else self.now + patience
        made = sequence(str(self.names), tokens, max_tokens, salt, tenant, priority, self.now, deadline, reserve)
        made.objective = None if slo is None else self.now + slo
        made.surplus = surplus
        self.subject.add(made)

    @rule(pick=st.integers(0, 100))
    def abort(self, pick: int) -> None:
        live = [*self.live(), *self.parked()]
        if live:
            victim = live[pick % len(live)]
            self.subject.remove(victim)
            self.beams = [one for one in self.beams if one is not victim]
            assert victim.tables == []

    @rule(pick=st.integers(0, 100))
    def fork(self, pick: int) -> None:
        # Who has its last token is not there any more, and is not begun either.
        parents = [one for one in self.subject.running if 0 <= one.computed - one.prompt_length < one.max_tokens - 1]
        if parents and len(self.subject.waiting) < MAX_WAITING:
            self.fork_of(parents[pick % len(parents)])

    @rule(pick=st.integers(0, 100))
    def step_in_which_a_beam_is_held(self, pick: int) -> None:
        self.step(beam_at=pick)

    @rule(pick=st.integers(0, 100))
    def park(self, pick: int) -> None:
        beams = [one for one in self.beams if one.status is Status.RUNNING]
        if beams:
            beam = beams[pick % len(beams)]
            self.subject.park(beam)
            assert beam.tables == []

    @rule(pick=st.integers(0, 100), forks=st.integers(0, 2))
    def beam_goes_on(self, pick: int, forks: int) -> None:
        if not self.beams or len(self.subject.waiting) + forks >= MAX_WAITING:
            return
        beam = self.beams.pop(pick % len(self.beams))
        for _ in range(forks if beam.generated < beam.max_tokens - 1 else 0):
            self.fork_of(beam, len(beam.tokens))
        beam.tokens.append(1)
        if beam.generated >= beam.max_tokens:
            self.subject.remove(beam)
        elif beam.status is Status.PARKED:
            self.subject.unpark(beam, self.now)

    def fork_of(self, parent: Sequence, computed: int | None = None) -> None:
        self.names += 1
        prompt = parent.tokens[: parent.prompt_length]
        child = sequence(parent.request_id, prompt, parent.max_tokens, parent.cache_salt)
        child.choice = self.names
        child.tenant, child.priority, child.reserve = parent.tenant, parent.priority, parent.reserve
        child.surplus = parent.surplus
        child.tokens = [*parent.tokens[: parent.computed if computed is None else computed], 2]
        child.arrived = child.queued_at = parent.arrived
        held = self.subject.cache.used
        if not self.subject.fork(parent, child):
            assert child.tables == []
            assert self.subject.cache.used == held
            self.subject.add(child)

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(pick=st.integers(0, 100))
    def step_that_fails_in_one(self, pick: int) -> None:
        self.step(fault=pick)

    @rule(times=st.integers(1, 12))
    def steps_in_a_row(self, times: int) -> None:
        for _ in range(times):
            self.step()

    @rule(forced=st.integers(1, LIMITS.prefill_chunk - 1))
    def step_in_which_tokens_are_forced(self, forced: int) -> None:
        self.step(forced=forced)

    @rule(data=st.data())
    def step_with_guesses(self, data: st.DataObject) -> None:
        for one in self.subject.running:
            most = min(LIMITS.prefill_chunk - one.pending, one.max_tokens - one.generated - 1)
            if one.decoding and most > 0:
                one.draft = [2] * data.draw(st.integers(0, most))
        self.step(right=data.draw(st.integers(0, LIMITS.prefill_chunk)))

    def step(self, fault: int | None = None, forced: int = 0, right: int = 0, beam_at: int | None = None) -> None:
        self.steps += 1
        self.now += 0.25
        crowds = self.crowds()
        plan = self.subject.schedule(self.now)
        assert plan.tokens <= LIMITS.batch_tokens
        assert not plan.failed
        assert len({id(chunk.sequence) for chunk in plan.chunks}) == len(plan.chunks)
        assert plan.chunks or not self.live() or self.beams  # somebody always goes on
        assert not any(chunk.sequence in self.beams for chunk in plan.chunks)
        assert not any(victim.reserve for victim in plan.preempted)
        for late in plan.expired:
            assert late.deadline is not None
            assert late.deadline <= self.now
            assert late.generated == 0
        for copy in plan.copies:
            for place in range(BLOCK_SIZE):
                source = (copy.group, copy.source, place)
                self.slots[copy.group, copy.target, place] = self.slots.get(source, NOTHING)
        self.check_shares(plan, crowds)
        for chunk in plan.chunks:
            assert 1 <= chunk.length <= LIMITS.prefill_chunk
            self.write(chunk.sequence, chunk.start, chunk.end)
        for chunk in plan.chunks:
            for group, window in enumerate(self.windows):
                seen = 0 if window is None else max(0, chunk.start - window + 1)
                for position in range(seen, chunk.end):
                    held = self.slots[self.slot(chunk.sequence, group, position)]
                    assert held == self.content(chunk.sequence, position)
        self.subject.took(plan.load, 0.01 + 0.001 * plan.tokens)
        if fault is not None and plan.chunks:  # what the engine does about an error inside one sequence
            bad = plan.chunks[fault % len(plan.chunks)].sequence
            self.subject.remove(bad)
            plan = type(plan)(tuple(chunk for chunk in plan.chunks if chunk.sequence is not bad))
        ready = [chunk.sequence for chunk in plan.chunks if chunk.samples and not chunk.draft]
        beam = ready[beam_at % len(ready)] if ready and beam_at is not None else None
        self.beams += [] if beam is None else [beam]
        finish_step(self.subject, plan, forced, right, beam)
        self.check_waits()

    def crowds(self) -> dict[str, Priority]:
        """The tenants with more than their part of a step before them, and the class from which on others are there,
        as the next step will find them. Counts what waits anew."""
        expired = {
            one for one in self.subject.waiting if not one.generated and one.deadline and one.deadline <= self.now
        }
        waiting = [one for one in self.subject.waiting if one not in expired]
        found = self.with_more(waiting, LIMITS.batch_tokens // CROWD_DIVISOR, CROWD)
        others = [
            one.priority for one in self.live() if one.tenant not in found and not one.surplus and one not in expired
        ]
        of = self.subject.counters.of
        prompts = [*waiting, *(one for one in self.subject.running if not one.decoding and not one.held)]
        most = max((of(one.tenant) for one in prompts if one.tenant not in found), default=0.0)
        limited = [each for each in found if of(each) + LIMITS.batch_tokens >= most]
        return dict.fromkeys(limited, min(others)) if others else {}

    def with_more(self, waiting: list[Sequence], tokens: int, count: int) -> set[str]:
        asked = {each: [one.uncached for one in waiting if one.tenant == each] for each in TENANTS}
        return {
            each
            for each in TENANTS
            if len(asked[each]) >= count or (len(asked[each]) > 1 and sum(asked[each]) > tokens)
        }

    def check_shares(self, plan: Plan, crowds: dict[str, Priority]) -> None:
        """Tenants that crowd the engine have no more of a step than their parts while others are there."""
        limited = sum(
            chunk.length
            for chunk in plan.chunks
            if not chunk.sequence.decoding
            and chunk.sequence.tenant in crowds
            and chunk.sequence.rank >= crowds[chunk.sequence.tenant]
            and chunk.sequence.level >= chunk.sequence.rank
        )
        assert limited <= PART * len(crowds)

    def check_waits(self) -> None:
        """Who has reached the top level is started within a number of steps that depends on the queue's bound only."""
        waiting = {(one.request_id, one.choice): one for one in self.subject.waiting}
        self.rose = {name: step for name, step in self.rose.items() if name in waiting}
        for name, one in waiting.items():
            # Preempted in this very step, its prompt unfinished, it leaves with the next.
            fresh = one.preemptions > 0 and one.queued_at == self.now
            assert one.deadline is None or one.generated or one.deadline > self.now or fresh
            if level(one, self.now, AGEING_S) == Priority.INTERACTIVE:
                self.rose.setdefault(name, self.steps)
                assert self.steps - self.rose[name] <= MAX_STEPS

    def live(self) -> list[Sequence]:
        return [*self.subject.running, *self.subject.waiting]

    def parked(self) -> list[Sequence]:
        return [one for one in self.beams if one.status is Status.PARKED]

    def write(self, subject: Sequence, start: int, end: int) -> None:
        for group in range(len(self.windows)):
            for position in range(start, end):
                self.slots[self.slot(subject, group, position)] = self.content(subject, position)

    def slot(self, subject: Sequence, group: int, position: int) -> Slot:
        block = subject.tables[group].blocks[position // BLOCK_SIZE]
        assert block < self.subject.cache.groups[group].zero_page
        return group, block, position % BLOCK_SIZE

    def content(self, subject: Sequence, position: int) -> Content:
        return subject.cache_salt, (*subject.tokens, *subject.draft)[: position + 1]

    @invariant()
    def books_balance(self) -> None:
        self.subject.cache.check_integrity()
        for number, group in enumerate(self.subject.cache.groups):
            tables = [one.tables[number] for one in self.subject.running]
            assert group.pool.used == len({block for table in tables for block in table.held})
            if group.shape.bound is not None:
                assert all(len(table.held) <= group.shape.bound for table in tables)
            for one, table in zip(self.subject.running, tables, strict=True):
                assert list((c_int32 * len(table.blocks)).from_address(table.address)) == table.blocks
                if one.decoding and one.room <= table.ready_for:
                    before = list(table.blocks)
                    assert group.prepare(table, one.computed, one.room) is None
                    assert table.blocks == before
        assert len(self.subject.running) <= LIMITS.sequences
        assert all(one.status is Status.WAITING and not one.tables for one in self.subject.waiting)
        assert not any(one.tables for one in self.parked())
        assert all(one.held for one in self.beams if one.status is Status.RUNNING)
        first = sum(not one.choice for one in self.subject.waiting)
        assert sum(self.subject.waiting.by_line().values()) == self.subject.waiting.requests == first
        for tokens in (0, PART, 3 * PART):
            for count in (1, 3, CROWD):
                more = self.with_more(list(self.subject.waiting), tokens, count)
                assert set(self.subject.waiting.tenants_with_more(tokens, count)) == more

    def teardown(self) -> None:
        for beam in self.beams:
            self.subject.remove(beam)
        self.beams = []
        for _ in range(MAX_STEPS):
            if not self.live():
                break
            self.step()
        assert not self.live()
        assert self.subject.cache.used == 0
        assert not self.subject.waiting.by_line()


class WindowedMachine(SchedulerMachine):
    """Layers that all have a window, and no more blocks than one sequence may need."""

    windows = (14,)
    blocks = 6


class HybridMachine(SchedulerMachine):
    """Layers that see everything, and layers with windows, one of them less than a block."""

    windows = (None, 3, 9)


TestScheduler = SchedulerMachine.TestCase
TestWindowed = WindowedMachine.TestCase
TestHybrid = HybridMachine.TestCase
for case in (TestScheduler, TestWindowed, TestHybrid):
    case.settings = settings(
        max_examples=2_500 if LONG else 40,
        stateful_step_count=60 if LONG else 40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
del case  # else it would be run again by this name


class PrefillBudgetMachine(RuleBasedStateMachine):
    """Steps of any length: the pace never stops a prompt for two steps running, and never allows more than it may."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = PrefillBudget(slowdown=2.0, ceiling=64)
        self.refused = False

    @rule(decodes=st.integers(1, 40), short=st.sampled_from([0, 0, 9]), seconds=st.floats(1e-6, 1e3))
    def step(self, decodes: int, short: int, seconds: float) -> None:
        tokens = self.subject.tokens(decodes)
        assert 0 <= tokens <= 64
        assert tokens or not self.refused
        self.refused = not tokens
        self.subject.observe(Load(decodes, decodes, tokens, short), seconds)


TestPrefillBudget = PrefillBudgetMachine.TestCase
TestPrefillBudget.settings = settings(max_examples=400 if LONG else 20, stateful_step_count=50, deadline=None)
