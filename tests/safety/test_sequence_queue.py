"""The order of waiting sequences: urgent and short calls are served first, and no call starves."""

from __future__ import annotations

import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load_tests.safety.queue_waits import SCENARIOS, Scenario, waits_of
from safety.encoder.batch_runner import MAX_BATCH_TOKENS
from safety.encoder.sequence_queue import LEAD_TOKENS, SequenceQueue
from safety.encoder.tenant_calls import OLDEST_TURN, QueuedSequence, TenantCalls

MAX_TOKENS = 128


def tokens(*lengths: int) -> list[list[int]]:
    return [[0] * length for length in lengths]


def served(queue: SequenceQueue[str]) -> Iterator[QueuedSequence[str]]:
    """The sequences in the order in which the queue gives them."""
    while batch := queue.next_batch():
        yield from batch


def owners(queue: SequenceQueue[str]) -> list[str]:
    return [each.owner for each in served(queue)]


def test_of_a_tenant_urgent_calls_come_first_and_short_ones_before_long() -> None:
    queue: SequenceQueue[str] = SequenceQueue(1)
    queue.add("beside", tokens(20), "a")
    queue.add("document", tokens(*[100] * 8), "a", urgent=True)
    queue.add("passage", tokens(100, 100), "a", urgent=True)
    queue.add("prompt", tokens(30), "a", urgent=True)
    queue.add("after", tokens(10), "a")

    turns = owners(queue)

    assert turns[:3] == ["prompt", "passage", "passage"]
    assert turns.index("after") < turns.index("document")  # a check of an answer, before what takes seconds anyway


def test_of_equal_calls_the_first_comes_first() -> None:
    queue: SequenceQueue[str] = SequenceQueue(1)
    for name in "abc":
        queue.add(name, tokens(20), urgent=True)

    assert owners(queue) == ["a", "b", "c"]


def test_an_urgent_call_of_a_tenant_comes_before_the_turns_of_others() -> None:
    queue: SequenceQueue[str] = SequenceQueue(1)
    for tenant in "abcdefgh":
        queue.add(f"stream of {tenant}", tokens(60), tenant)
    queue.add("prompt", tokens(30), "z", urgent=True)

    assert owners(queue)[0] == "prompt"


def test_a_tenant_does_not_gain_by_pauses_between_its_urgent_calls() -> None:
    queue: SequenceQueue[str] = SequenceQueue(1)
    queue.add("kept", tokens(*[60] * 200), "slow")
    got: Counter[str] = Counter()
    for turn in range(100):
        if not queue.waiting("fast"):  # it comes when nothing of the tenant waits
            queue.add(f"prompt {turn}", tokens(64), "fast", urgent=True)
        (sequence,) = queue.next_batch()
        got["kept" if sequence.owner == "kept" else "fast"] += len(sequence.tokens)

    assert abs(got["fast"] - got["kept"]) <= LEAD_TOKENS + MAX_TOKENS


@pytest.mark.parametrize("floods", [1, 8])
def test_a_tenant_whose_calls_come_one_after_the_other_gives_a_lead_once(floods: int) -> None:
    queue: SequenceQueue[str] = SequenceQueue(1)
    for flood in range(floods):
        queue.add(f"flood {flood}", tokens(*[64] * 500), str(flood), urgent=True)
    got: Counter[str] = Counter()
    for turn in range(40 * (floods + 1)):
        if not queue.waiting("small"):
            queue.add(f"check {turn}", tokens(64), "small")
        (sequence,) = queue.next_batch()
        got["small" if sequence.owner.startswith("check") else sequence.owner] += len(sequence.tokens)

    assert max(got.values()) - got["small"] <= LEAD_TOKENS + MAX_TOKENS


def test_a_caller_that_leaves_takes_its_sequences_and_its_urgency_along() -> None:
    queue: SequenceQueue[str] = SequenceQueue(1)
    queue.add("other", tokens(10), "b")
    queue.add("leaving", tokens(20, 20), "a", urgent=True)
    queue.add("kept", tokens(20), "a")
    queue.drop("leaving", "a")
    queue.drop("unknown", "a")
    queue.drop("leaving", "unknown")

    assert (len(queue), queue.waiting("a"), queue.waiting("unknown")) == (2, 1, 0)
    assert owners(queue) == ["other", "kept"]
    assert queue.next_batch() == []


def test_callers_that_leave_while_others_wait_take_no_memory() -> None:
    queue: SequenceQueue[object] = SequenceQueue(1)
    queue.add("kept", tokens(1), "a")
    many = tokens(*[1] * 8)
    tracemalloc.start()
    for _ in range(5000):
        leaving = object()
        queue.add(leaving, many, "a")
        queue.drop(leaving, "a")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 100_000


Calls = list[tuple[int, bool, list[int]]]
CALLS = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=6)),
    max_size=30,
)
"""Calls of up to four tenants: urgent or not, and the lengths of their sequences."""


@given(CALLS, st.integers(1, 600))
def test_each_sequence_is_served_once_and_those_of_a_call_in_order(calls: Calls, max_batch_tokens: int) -> None:
    queue: SequenceQueue[str] = SequenceQueue(max_batch_tokens)
    for number, (tenant, urgent, lengths) in enumerate(calls):
        queue.add(f"call {number}", tokens(*lengths), str(tenant), urgent=urgent)
    assert len(queue) == sum(len(lengths) for _, _, lengths in calls)

    places = defaultdict(list)
    while batch := queue.next_batch():
        assert len(batch) == 1 or len(batch) * max(len(each.tokens) for each in batch) <= max_batch_tokens
        for each in batch:
            places[each.owner].append(each.place)

    assert places == {f"call {number}": list(range(len(lengths))) for number, (*_, lengths) in enumerate(calls)}


@given(st.lists(CALLS, min_size=2, max_size=20))
@settings(deadline=None)
def test_no_call_waits_for_more_turns_than_its_place_in_line(rounds: list[Calls]) -> None:
    """Whatever comes meanwhile, and however urgent it is: a call is served again after OLDEST_TURN turns of its tenant
    for each call that was there when it was served last."""
    calls: TenantCalls[str] = TenantCalls()
    left: Counter[str] = Counter()
    due: dict[str, int] = {}
    turn = 0
    for number, added in enumerate(rounds):
        for place, (_, urgent, lengths) in enumerate(added):
            name = f"call {number}.{place}"
            calls.add(name, tokens(*lengths), urgent=urgent)
            left[name] = len(lengths)
            due[name] = turn + OLDEST_TURN * len(due | {name: 0})
        for _ in range(3):
            if not len(calls):
                break
            turn += 1
            name = calls.take().owner
            left[name] -= 1
            del due[name]
            if left[name]:
                due[name] = turn + OLDEST_TURN * (len(due) + 1)
            assert all(turn < each for each in due.values())


@given(
    st.lists(st.tuples(st.booleans(), st.integers(8, MAX_TOKENS)), min_size=2, max_size=6),
    st.integers(1, 400),
    st.integers(1, 40),
)
def test_tenants_that_wait_get_equal_shares_of_the_tokens(
    tenants: list[tuple[bool, int]], max_batch_tokens: int, batches: int
) -> None:
    queue: SequenceQueue[str] = SequenceQueue(max_batch_tokens)
    for number, (urgent, length) in enumerate(tenants):
        queue.add(str(number), [[0] * length] * 2000, str(number), urgent=urgent)  # none of them runs out

    got: Counter[str] = Counter({str(number): 0 for number in range(len(tenants))})
    for _ in range(batches):
        for each in queue.next_batch():
            got[each.owner] += len(each.tokens)

    assert max(got.values()) - min(got.values()) <= LEAD_TOKENS + MAX_TOKENS


@given(st.integers(1, 8), st.integers(1, MAX_TOKENS), st.data())
def test_a_flood_of_urgent_calls_of_others_delays_a_tenant_by_their_lead_alone(
    floods: int, length: int, data: st.DataObject
) -> None:
    queue: SequenceQueue[str] = SequenceQueue(1)
    for flood in range(floods):
        for place in range(200):
            size = data.draw(st.integers(1, MAX_TOKENS)) if place < 3 else MAX_TOKENS
            queue.add(f"{flood}/{place}", tokens(size), f"flood {flood}", urgent=True)
    for _ in range(data.draw(st.integers(0, 50))):
        queue.next_batch()
    queue.add("kept", tokens(length), "small")

    before = 0
    for each in served(queue):
        if each.owner == "kept":
            break
        before += len(each.tokens)

    assert before <= floods * 2 * (LEAD_TOKENS + MAX_TOKENS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[each.name for each in SCENARIOS])
def test_short_first_checks_wait_for_a_batch_or_two_and_the_rest_is_served(scenario: Scenario) -> None:
    waits = waits_of(scenario, SequenceQueue(MAX_BATCH_TOKENS), 20.0)

    assert p99(waits["first checks of short prompts"]) < 0.080
    assert ("checks beside streams" in waits) == bool(scenario.streams)
    assert p99(waits.get("checks beside streams", [0.0])) < 0.5
    assert ("long documents" in waits) == bool(scenario.documents)


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))]
