"""A tenant that crowds the engine has its part of each step and of the places while others are about, from the first
step on; one that is alone has everything."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.api import Priority
from engine.scheduler.fairness import TokenCounters
from engine.scheduler.limits import Limits
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Plan
from engine.scheduler.tenant_limits import SHARED_S, Presence
from tests.engine.sequences import finish_step, scheduler, sequence, step

HIGH, MIDDLE, LOW = Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH
WIDE = Limits(batch_tokens=160, prefill_chunk=80, sequences=16)


def flooded(
    count: int = 40,
    quiet: Priority | None = MIDDLE,
    flood: Priority = MIDDLE,
    answer: int = 8,
    **changes: object,
) -> Scheduler:
    """A scheduler at whose queue a flood has just arrived, while ``quiet`` writes an answer of that class."""
    subject = scheduler(blocks=2000, prefix_caching=False, limits=WIDE, **changes)  # type: ignore[arg-type]
    if quiet is not None:
        subject.add(sequence("quiet", [1] * 4, max_tokens=100, tenant="quiet", priority=quiet))
        step(subject)
    for number in range(count):
        subject.add(sequence(f"flood {number}", [9] * 40, answer, tenant="flood", priority=flood, arrived=1.0))
    return subject


def prompt_tokens(plan: Plan) -> Counter[str]:
    """The prompt tokens of a step, by tenant."""
    tokens: Counter[str] = Counter()
    for chunk in plan.chunks:
        if not chunk.sequence.decoding:
            tokens[chunk.sequence.tenant] += chunk.length
    return tokens


def test_a_flood_has_its_part_of_a_step_and_another_prompt_is_in_the_next_one_whole() -> None:
    subject = flooded()
    plan = subject.schedule(1.0)
    assert prompt_tokens(plan) == {"flood": 40}
    finish_step(subject, plan)

    subject.add(sequence("new", [5] * 60, tenant="other", arrived=1.1))
    assert prompt_tokens(subject.schedule(1.1)) == {"other": 60, "flood": 5}


def test_a_tenant_that_is_alone_has_whole_steps() -> None:
    subject = flooded(quiet=None)

    for _ in range(3):
        plan = subject.schedule(1.0)
        finish_step(subject, plan)
        assert plan.tokens == WIDE.batch_tokens


def test_the_limits_end_some_time_after_others_have_gone() -> None:
    subject = flooded()
    subject.remove(next(one for one in subject.running if one.tenant == "quiet"))

    assert prompt_tokens(subject.schedule(SHARED_S - 1.0)) == {"flood": 40}
    assert prompt_tokens(subject.schedule(SHARED_S + 1.0))["flood"] > 100


def test_the_first_prompt_of_another_tenant_ends_whole_steps_at_once() -> None:
    subject = flooded(quiet=None)
    step(subject, 1.0)
    subject.add(sequence("new", [5] * 60, tenant="other", arrived=1.1))

    plan = subject.schedule(1.1)
    assert prompt_tokens(plan) == {"other": 60, "flood": 5}
    assert plan.admitted[0].request_id == "new"


def test_tenants_that_crowd_alike_do_not_limit_each_other() -> None:
    subject = flooded(quiet=None)
    for number in range(40):
        subject.add(sequence(f"second {number}", [8] * 40, tenant="second", arrived=1.0))

    tokens = prompt_tokens(subject.schedule(1.0))
    assert tokens.total() == WIDE.batch_tokens
    assert tokens["flood"] == tokens["second"]


@pytest.mark.parametrize(("quiet", "tokens"), [(HIGH, 40), (MIDDLE, 40), (LOW, 155)])
def test_a_class_is_limited_for_others_of_the_same_class_or_a_higher_one(quiet: Priority, tokens: int) -> None:
    subject = flooded(quiet=quiet, flood=MIDDLE)

    assert prompt_tokens(subject.schedule(1.0))["flood"] == pytest.approx(tokens, abs=5)


def test_a_prompt_of_a_lower_class_does_not_shorten_steps_of_a_higher_one() -> None:
    subject = flooded(quiet=HIGH, flood=HIGH)
    subject.add(sequence("batch", [5] * 60, tenant="other", priority=LOW, arrived=1.0))

    assert prompt_tokens(subject.schedule(1.0))["flood"] == 40


def test_one_long_prompt_is_no_crowd() -> None:
    subject = scheduler(blocks=2000, limits=WIDE)
    subject.add(sequence("quiet", [1] * 4, max_tokens=100, tenant="quiet"))
    step(subject)
    subject.add(sequence("long", [9] * 300, tenant="other"))

    assert prompt_tokens(subject.schedule(1.0)) == {"other": 80}


def test_a_flood_leaves_places_free_beyond_its_share() -> None:
    subject = flooded(answer=200)
    for now in range(40):
        step(subject, 1.0 + now / 10)

    assert Counter(one.tenant for one in subject.running) == {"flood": 13, "quiet": 1}


@pytest.mark.parametrize(("weights", "given"), [({}, 8), ({"flood": 3.0}, 4)])
def test_a_flood_that_came_first_gives_back_what_is_beyond_its_share_of_the_places(
    weights: dict[str, float], given: int
) -> None:
    subject = flooded(quiet=None, answer=200, weights=weights)
    for now in range(20):
        step(subject, 1.0 + now / 10)
    assert len(subject.running) == WIDE.sequences
    for number in range(12):
        subject.add(sequence(f"new {number}", [number + 2] * 4, 200, tenant="other", arrived=4.0))
        plan = subject.schedule(4.0)
        finish_step(subject, plan)
        assert len(plan.admitted) == len(plan.preempted) == (number < given)

    assert Counter(one.tenant for one in subject.running) == {"flood": 16 - given, "other": given}


def test_a_flood_gives_back_what_is_beyond_its_share_of_the_kv_cache() -> None:
    subject = scheduler(blocks=40, batch_tokens=160, prefill_chunk=80, sequences=16)
    for number in range(8):
        subject.add(sequence(f"flood {number}", [number + 20] * 40, 80, tenant="flood"))
    for now in range(4):
        step(subject, now / 10)
    assert len(subject.running) < 4, "places are not what is lacking"
    subject.add(sequence("new", [5] * 40, tenant="other", arrived=1.0))

    assert "new" in step(subject, 1.0)
    subject.add(sequence("too much", [6] * 60, tenant="other", arrived=1.0))
    assert "too much" not in step(subject, 1.0)


def test_the_least_computed_sequence_of_a_flood_gives_way() -> None:
    subject = flooded(quiet=None, answer=200)
    for now in range(20):
        step(subject, 1.0 + now / 10)
    computed = {one.request_id: one.computed for one in subject.running}
    subject.add(sequence("new", [5] * 4, tenant="other", arrived=4.0))
    plan = subject.schedule(4.0)

    assert "new" in {chunk.sequence.request_id for chunk in plan.chunks}
    assert [computed[one.request_id] for one in plan.preempted] == [min(computed.values())]


@pytest.mark.parametrize(("holder", "newcomer"), [(HIGH, MIDDLE), (MIDDLE, LOW)])
def test_a_lower_class_takes_no_place_of_a_flood(holder: Priority, newcomer: Priority) -> None:
    subject = flooded(quiet=None, flood=holder, answer=200)
    for now in range(20):
        step(subject, 1.0 + now / 10)
    subject.add(sequence("new", [5] * 4, tenant="other", priority=newcomer, arrived=4.0))

    assert "new" not in step(subject, 4.0)
    assert not subject.preemptions


def test_a_long_prompt_starts_beside_those_of_a_flood_and_shares_their_tokens() -> None:
    subject = scheduler(blocks=2000, batch_tokens=64, prefill_chunk=16, sequences=8, decode_slowdown=2.0)
    subject.add(sequence("decodes", [1] * 4, max_tokens=500, tenant="third"))
    for number in range(3):
        subject.add(sequence(f"flood {number}", [9] * 400, tenant="flood"))
    for _ in range(4):
        plan = subject.schedule(0.0)
        subject.took(plan.load, 0.01 + 0.001 * plan.tokens)
        finish_step(subject, plan)
    subject.add(sequence("new", [5] * 40, max_tokens=1, tenant="other"))
    shares: list[Counter[str]] = []
    while any(one.request_id == "new" for one in [*subject.running, *subject.waiting]):
        plan = subject.schedule(0.0)
        subject.took(plan.load, 0.01 + 0.001 * plan.tokens)
        shares.append(prompt_tokens(plan))
        finish_step(subject, plan)

    assert len(shares) < 20, "not after 1,200 tokens of the flood"
    assert all(each["other"] >= each["flood"] for each in shares[1:-1])


def test_who_has_left_is_about_for_a_while() -> None:
    subject = Presence()
    assert not subject.has_others((), 0.0)
    subject.arrive("a")
    subject.arrive("a")
    assert subject.has_others((), 0.0)
    assert not subject.has_others(("a",), 0.0)
    subject.leave("a", 1.0)
    assert subject.has_others(("b",), 100.0)
    subject.leave("a", 100.0)
    assert subject.has_others(("b",), 100.0 + SHARED_S - 0.1)
    assert not subject.has_others(("b",), 100.0 + SHARED_S)


def test_a_long_prompt_of_a_lower_class_takes_no_tokens_from_one_of_a_higher_class() -> None:
    subject = scheduler(blocks=2000, batch_tokens=64, prefill_chunk=16, sequences=8, decode_slowdown=2.0)
    subject.add(sequence("decodes", [1] * 4, max_tokens=500, tenant="third"))
    step(subject)
    subject.add(sequence("batch", [5] * 400, tenant="other", priority=LOW))
    step(subject)
    subject.add(sequence("standard", [9] * 400, tenant="one"))
    step(subject)
    for _ in range(4):
        plan = subject.schedule(0.0)
        subject.took(plan.load, 0.01 + 0.001 * plan.tokens)
        finish_step(subject, plan)
        assert not prompt_tokens(plan)["other"]


def test_tenants_that_left_long_ago_are_forgotten() -> None:
    subject = Presence()
    for number in range(1000):
        subject.arrive(str(number))
        subject.leave(str(number), float(number))

    assert len(subject) == SHARED_S


def test_a_share_is_that_among_the_tenants_that_are_in_the_engine() -> None:
    subject = TokenCounters({"heavy": 0.3, "light": 0.1})
    for _ in range(1000):
        for tenant in ("heavy", "light", "usual", "usual"):
            subject.arrive(tenant)
        assert subject.share("heavy") == pytest.approx(0.3 / 1.4)
        assert subject.share("usual") == pytest.approx(1 / 1.4)
        subject.leave("light")
        assert subject.share("light") == pytest.approx(0.1 / 1.4), "what it would have"
        subject.leave("usual")
        subject.leave("heavy")
        assert subject.share("usual") == 0.5
        subject.leave("usual")


def test_a_crowd_is_not_starved_by_long_prompts_of_others_that_come_one_by_one() -> None:
    subject = scheduler(blocks=4000, prefix_caching=False, batch_tokens=128, prefill_chunk=32, sequences=16)
    tokens: Counter[str] = Counter()
    for now in range(800):
        for tenant, count in (("crowd", 12), ("one", 1), ("two", 1)):
            for number in range(count - sum(each.tenant == tenant for each in subject.waiting)):
                subject.add(sequence(f"{tenant} {now} {number}", [5] * 300, 4, tenant=tenant, arrived=now / 50))
        plan = subject.schedule(now / 50)
        tokens += prompt_tokens(plan)
        finish_step(subject, plan)

    assert tokens["crowd"] > 0.25 * tokens.total()
