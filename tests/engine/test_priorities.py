"""Classes, ageing, deadlines, and what a cached prefix is worth."""

from __future__ import annotations

import gc

import pytest

from engine.api import FinishReason, GenerationRequest, Priority, RequestError, SamplingParams, Usage
from engine.kv.cache import KVCache
from engine.kv.shape import GroupShape
from engine.scheduler.preemption import strength, weakest
from engine.sequence import Sequence, Status
from tests.engine.conftest import MakeEngine
from tests.engine.sequences import finish_step, run, scheduler, sequence, step

pytestmark = pytest.mark.usefixtures("clear_choices")

HIGH, MIDDLE, LOW = Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH


def test_classes_start_in_order_however_they_arrive() -> None:
    subject = scheduler(sequences=1)
    for n, priority in enumerate((LOW, MIDDLE, HIGH, LOW, HIGH)):
        subject.add(sequence(f"{priority.name}{n}", [n + 1] * 3, max_tokens=2, priority=priority, arrived=float(n)))

    assert run(subject, now=5.0) == ["INTERACTIVE2", "INTERACTIVE4", "STANDARD1", "BATCH0", "BATCH3"]


@pytest.mark.parametrize(("waited", "first"), [(19.0, "new"), (20.0, "old")])
def test_waiting_raises_by_one_class_at_a_time(waited: float, first: str) -> None:
    subject = scheduler(sequences=1, ageing_s=10.0)
    subject.add(sequence("old", [1] * 3, priority=LOW))
    subject.add(sequence("new", [2] * 3, priority=HIGH, arrived=waited))

    assert run(subject, now=waited)[0] == first


def test_batch_work_is_done_under_endless_higher_load() -> None:
    subject = scheduler(blocks=30, sequences=2, ageing_s=50.0)
    subject.add(sequence("batch", [1] * 6, max_tokens=6, priority=LOW))
    started: dict[str, int] = {}
    for now in range(400):
        while len(subject.waiting) < 4:
            subject.add(sequence(f"{now}-{len(subject.waiting)}", [2] * 6, 6, priority=HIGH, arrived=float(now)))
        plan = subject.schedule(float(now))
        started |= {one.request_id: now for one in plan.admitted}
        finish_step(subject, plan)

    assert 0 < started["batch"] <= 100 + 40  # two classes of ageing, and those that came before the second


def fill(subject, priority: Priority, blocks: int = 5) -> Sequence:  # type: ignore[no-untyped-def]
    """A sequence that holds nearly all blocks and is not done for long."""
    holder = sequence("holder", [7] * (4 * blocks - 2), max_tokens=20, priority=priority)
    subject.add(holder)
    for _ in range(6):
        step(subject)
    return holder


@pytest.mark.parametrize(
    ("holder", "newcomer", "displaced"),
    [(LOW, HIGH, True), (LOW, MIDDLE, True), (MIDDLE, HIGH, True), (MIDDLE, MIDDLE, False), (HIGH, LOW, False)],
)
def test_only_a_higher_class_displaces(holder: Priority, newcomer: Priority, displaced: bool) -> None:
    subject = scheduler(blocks=6, prefix_caching=False)
    held = fill(subject, holder)
    subject.add(sequence("new", [3] * 8, priority=newcomer))
    names = step(subject)

    assert (held.status is Status.WAITING) == displaced == ("new" in names)


def test_nobody_is_displaced_by_one_that_fits_or_in_vain() -> None:
    subject = scheduler(blocks=12, prefix_caching=False)
    low = fill(subject, LOW, blocks=4)
    subject.add(sequence("standard", [5] * 8, max_tokens=20, priority=MIDDLE))
    step(subject)
    subject.add(sequence("fits", [3] * 3, max_tokens=1, priority=HIGH))
    step(subject)
    assert low.status is Status.RUNNING

    subject = scheduler(blocks=12, prefix_caching=False)
    subject.add(sequence("reserved", [5] * 20, max_tokens=20, priority=MIDDLE, reserve=True))
    subject.add(low := sequence("low", [6] * 3, priority=LOW))
    step(subject)
    subject.add(sequence("too big", [3] * 20, priority=HIGH))
    step(subject)
    assert low.status is Status.RUNNING


def test_a_displaced_sequence_comes_back_and_is_left_alone_for_a_while() -> None:
    subject = scheduler(blocks=6, prefix_caching=False, cooldown=5, sequences=3)
    low = fill(subject, LOW, blocks=4)
    subject.add(sequence("first", [3] * 8, max_tokens=2, priority=HIGH))
    step(subject)
    assert low in list(subject.waiting)
    while low.status is not Status.RUNNING or not low.decoding:
        step(subject)
    subject.add(sequence("second", [4] * 8, max_tokens=2, priority=HIGH))
    before = low.generated
    while low.status is Status.RUNNING:
        step(subject)

    assert low.generated - before >= 4
    assert len(low.tokens) > low.prompt_length


@pytest.mark.parametrize(
    ("others", "victim"),
    [
        ([(MIDDLE, 9), (LOW, 50)], 1),  # the lowest class
        ([(MIDDLE, 9), (MIDDLE, 5)], 1),  # the least computed
        ([(MIDDLE, 5), (MIDDLE, 9)], 0),
    ],
)
def test_the_least_computed_of_the_lowest_class_gives_way(others: list[tuple[Priority, int]], victim: int) -> None:
    running = []
    for n, (priority, computed) in enumerate(others):
        one = sequence(str(n), [1] * computed, priority=priority)
        one.computed, one.level = computed, int(priority)
        running.append(one)

    assert weakest(running, cooldown=8) is running[victim]
    running[victim].preemptions = 1  # and not yet made up for
    assert weakest(running, cooldown=8) is running[1 - victim]
    assert strength(running[victim], 8) < strength(running[1 - victim], 8)


def test_a_deadline_ends_the_wait_and_only_that() -> None:
    subject = scheduler(sequences=1)
    subject.add(sequence("runs", [1] * 3, max_tokens=50, deadline=1.0))
    subject.add(late := sequence("late", [2] * 3, deadline=2.0))
    subject.add(sequence("aborted", [3] * 3, deadline=1.5))
    step(subject)
    subject.remove(next(one for one in subject.waiting if one.request_id == "aborted"))

    assert subject.schedule(1.9).expired == ()
    plan = subject.schedule(2.0)
    assert plan.expired == (late,)
    assert late.status is Status.ENDED
    assert [chunk.sequence.request_id for chunk in plan.chunks] == ["runs"]


@pytest.mark.parametrize("instant", ["deadline", "objective"])
def test_what_has_ended_is_not_kept_until_an_instant_that_is_far_away(instant: str) -> None:
    subject = scheduler()
    for number in range(500):
        one = sequence(f"{number}", [number + 1] * 3, max_tokens=1)
        setattr(one, instant, 86_400.0)
        subject.add(one)
        run(subject)

    assert sum(type(each) is Sequence and getattr(each, instant) == 86_400.0 for each in gc.get_objects()) < 100


def test_one_that_is_preempted_before_its_first_token_is_late_once() -> None:
    subject = scheduler(sequences=1)
    subject.add(late := sequence("late", [1] * 12, deadline=2.0))
    for _ in range(200):
        subject.schedule(0.0)
        subject.requeue(late, 0.0)

    assert subject.schedule(2.0).expired == (late,)
    assert len(subject.waiting) == 0


def test_a_preempted_answer_that_has_begun_is_not_ended_by_its_deadline() -> None:
    subject = scheduler(blocks=6, prefix_caching=False)
    low = fill(subject, LOW)
    low.deadline = 5.0
    subject.add(sequence("high", [3] * 8, priority=HIGH))
    step(subject)
    assert low.status is Status.WAITING
    assert low.generated > 0

    assert subject.schedule(6.0).expired == ()


@pytest.mark.parametrize(("later_by", "first"), [(0.5, "cached"), (1.5, "old")])
def test_a_cached_prompt_goes_a_little_earlier(later_by: float, first: str) -> None:
    subject = scheduler(blocks=30, sequences=1, prefix_bonus_s=1.0)
    subject.add(sequence("warm", [1] * 25, max_tokens=1))
    run(subject)
    subject.add(sequence("old", [2] * 25))
    subject.add(sequence("cached", [1] * 25, arrived=later_by))

    assert run(subject, now=2.0)[0] == first


def test_the_cached_share_is_what_admission_finds() -> None:
    cache = KVCache([GroupShape(None, 20, 4, 8)], prefix_caching=True)
    first = sequence("a", [1] * 30)
    assert cache.cached_share(first) == 0.0
    assert cache.admit(first, spare=0)
    first.computed = 22
    cache.commit(first)
    second = sequence("b", [1] * 30)
    assert cache.cached_share(second) == 20 / 30
    assert cache.lacks(second, spare=12) == (3 + 12 - 12,)
    assert cache.admit(second, spare=0)
    assert second.computed == 20
    assert cache.exclusive(second) == (3,)


@pytest.mark.parametrize("bad", [{"priority": 2}, {"deadline_s": 0.0}, {"deadline_s": float("nan")}])
def test_wrong_fields_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(RequestError) as refusal:
        GenerationRequest("a", (1,), **bad)  # type: ignore[arg-type]
    assert refusal.value.param == next(iter(bad))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_displaced_answers_continue_as_if_nothing_had_happened(make_engine: MakeEngine, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=5, max_tokens=40, ignore_eos=True)
    prompts = {f"{priority.name}{n}": (priority, (n + 3,) * 30) for n in range(3) for priority in reversed(Priority)}
    roomy, tight = make_engine(), make_engine(kv_cache_tokens=208, prefix_caching=False, preemption_cooldown=4)
    expected = roomy.generate([prompt for _, prompt in prompts.values()], params)
    answers: dict[str, tuple[int, ...]] = dict.fromkeys(prompts, ())
    for name, (priority, prompt) in prompts.items():
        tight.add(GenerationRequest(name, prompt, params, priority=priority))
        for delta in (delta for _ in range(4) for delta in tight.step()):
            answers[delta.request_id] += delta.token_ids
    while tight.has_work:
        for delta in tight.step():
            answers[delta.request_id] += delta.token_ids

    assert list(answers.values()) == [one.token_ids for one in expected]
    assert tight.stats().preemptions > 0
    tight.repair()
    assert tight.metrics().repairs == 0


def test_a_late_request_is_told_so(make_engine: MakeEngine) -> None:
    engine = make_engine(max_sequences=1)
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    engine.add(GenerationRequest("runs", (1, 2), params))
    engine.step()
    engine.add(GenerationRequest("late", (1, 2), params, deadline_s=1e-9))
    last = [delta for delta in engine.step() if delta.request_id == "late"][-1]

    assert (last.finish_reason, last.text, last.token_ids) == (FinishReason.DEADLINE, "", ())
    assert last.usage == Usage(0, 0, 0), "nothing was computed that could be charged"
    assert engine.stats().expired == 1


def test_what_is_due_first_starts_first_and_without_an_objective_after_the_ageing() -> None:
    subject = scheduler(sequences=1, ageing_s=30.0)
    for name, objective in (("late", 20.0), ("none", None), ("soon", 5.0), ("none too", None), ("far", 500.0)):
        subject.add(sequence(name, [1] * 3, max_tokens=1, arrived=0.0, objective=objective))

    assert run(subject, now=1.0) == ["soon", "late", "none", "none too", "far"]


def test_a_deadline_orders_too() -> None:
    subject = scheduler(sequences=1)
    subject.add(sequence("patient", [1] * 3, max_tokens=1, deadline=20.0))
    subject.add(sequence("hurried", [2] * 3, max_tokens=1, deadline=10.0))

    assert run(subject, now=1.0) == ["hurried", "patient"]


def test_tenants_take_turns_whatever_is_due() -> None:
    subject = scheduler(sequences=1, batch_tokens=64)
    for n in range(3):
        subject.add(sequence(f"a{n}", [1] * 3, max_tokens=1, tenant="a", objective=1.5))
    subject.add(sequence("b", [2] * 3, max_tokens=1, tenant="b", objective=20.0))

    assert run(subject, now=1.0).index("b") == 1


def test_a_sequence_that_has_missed_its_objective_delays_none_that_can_be_in_time() -> None:
    subject = scheduler(sequences=1, ageing_s=100.0)
    subject.add(sequence("lost", [1] * 3, max_tokens=1, priority=HIGH, objective=5.0))
    subject.add(sequence("in time", [2] * 3, max_tokens=1, priority=HIGH, objective=20.0))
    subject.add(sequence("standard", [3] * 3, max_tokens=1, priority=MIDDLE, objective=20.0))
    subject.add(sequence("batch", [4] * 3, max_tokens=1, priority=LOW, arrived=1.0))

    assert run(subject, now=10.0) == ["in time", "standard", "lost", "batch"]
    assert subject.relegations == 1


def test_a_relegated_sequence_ages_and_is_served_under_endless_load() -> None:
    subject = scheduler(blocks=30, sequences=2, batch_tokens=128, ageing_s=20.0)
    subject.add(sequence("lost", [1] * 6, max_tokens=6, priority=HIGH, tenant="a", objective=-1.0))
    started: dict[str, int] = {}
    for now in range(200):
        while len(subject.waiting) < 4:
            subject.add(sequence(f"{now}-{len(subject.waiting)}", [2] * 6, 6, priority=HIGH, arrived=float(now)))
        plan = subject.schedule(float(now))
        started |= {one.request_id: now for one in plan.admitted}
        finish_step(subject, plan)

    assert 40 <= started["lost"] <= 80, "two classes of ageing, and what came before"


def test_what_has_its_first_token_is_not_relegated() -> None:
    subject = scheduler(sequences=2)
    one = sequence("one", [1] * 3, max_tokens=20, objective=5.0)
    subject.add(one)
    for _ in range(4):
        step(subject)
    subject.requeue(one, 4.0)
    subject.schedule(50.0)

    assert one.relegated_at is None
    assert subject.relegations == 0


def test_a_late_answer_that_has_begun_is_not_behind_batch_after_a_preemption() -> None:
    subject = scheduler(sequences=1, ageing_s=100.0)
    late = sequence("late", [1] * 3, max_tokens=20, priority=HIGH, objective=1.0)
    subject.add(late)
    for now in (5.0, 5.1, 5.2):
        finish_step(subject, subject.schedule(now))
    assert late.relegated_at is not None
    assert late.generated
    subject.requeue(late, 6.0)
    subject.add(sequence("standard", [2] * 3, max_tokens=1, arrived=6.0))

    assert [chunk.sequence.request_id for chunk in subject.schedule(7.0).chunks] == ["late"]


def test_relegated_sequences_count_with_their_class_and_tenant() -> None:
    subject = scheduler(sequences=1)
    subject.add(sequence("runs", [1] * 3))
    step(subject)
    subject.add(sequence("lost", [2] * 3, tenant="a", objective=1.0))
    subject.add(sequence("waits", [3] * 3, tenant="a"))
    subject.schedule(2.0)

    assert subject.waiting.by_line() == {(MIDDLE, "a"): 2}
    assert subject.waiting.requests == 2
