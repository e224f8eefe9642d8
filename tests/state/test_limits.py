"""The limits as pure functions, against a naive reference model that keeps every use with its time.

Some thousand steps belong to the suite; ``MANTA_LONG_TESTS=1`` makes it more than 100,000.
"""

from __future__ import annotations

import calendar
import os
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.limits import limit_transitions
from router.limits.limit_periods import DAY_MS, MINUTE_SLOTS, SECOND_MS, first_day, month_of
from router.limits.limit_transitions import REPORT_KEPT_MS, LimitState
from router.ports.limit_store import Charge, LimitName, Renewal, Reservation, Scope

START_MS = 1_792_368_000_000
LEASE_MS = 5000


def test_months_are_those_of_the_calendar() -> None:
    for day in (*range(-800, 800), *range(10_000, 50_000, 7), 11_016, 47_541):
        year, month, *_ = time.gmtime(day * 86_400)

        assert month_of(day) == year * 12 + month - 1
        assert first_day(month_of(day)) == calendar.timegm((year, month, 1, 0, 0, 0)) // 86_400


@dataclass
class Use:
    """One request in the reference model: when it was admitted, what it counts for, and the end of its lease."""

    at_ms: int
    scopes: tuple[str, ...]
    charge: Charge
    reported: Charge
    lease_end_ms: int
    open: bool = True  # not settled
    leased: bool = True


@dataclass
class Reference:
    """The naive model: a list of uses, and another of what was reported after the time of its request had passed. Each
    question is a sum over all of both."""

    uses: dict[str, Use] = field(default_factory=dict)
    late: list[tuple[int, str, LimitName, int]] = field(default_factory=list)  # time, scope, limit, amount

    def expire(self, now_ms: int) -> None:
        for use in self.uses.values():
            if use.open and use.leased and use.lease_end_ms <= now_ms:
                use.leased = False
                use.charge = use.reported

    def used(self, scope: str, name: LimitName, now_ms: int) -> int:
        mine = [use for use in self.uses.values() if scope in use.scopes]
        if name is LimitName.CONCURRENT_REQUESTS:
            return sum(use.open and use.leased for use in mine)
        late = sum(
            amount
            for at_ms, of, kind, amount in self.late
            if (of, kind) == (scope, name) and counts(name, at_ms, now_ms)
        )
        return late + sum(cost(name, use.charge) for use in mine if counts(name, use.at_ms, now_ms))

    def reserve(self, request_id: str, scopes: tuple[Scope, ...], charge: Charge, now_ms: int) -> bool:
        self.expire(now_ms)
        for scope in scopes:
            for name, limit in scope.limits:
                if cost(name, charge) and self.used(scope.name, name, now_ms) + cost(name, charge) > limit:
                    return False
        names = tuple(scope.name for scope in scopes)
        self.uses[request_id] = Use(now_ms, names, charge, Charge(), now_ms + LEASE_MS)
        return True

    def again(self, request_id: str, scopes: tuple[Scope, ...], charge: Charge, now_ms: int) -> bool:
        self.expire(now_ms)
        use = self.uses[request_id]
        if not use.leased:
            return True
        charge = Charge(max(charge.tokens, use.reported.tokens), max(charge.money, use.reported.money))
        for scope in scopes:
            for name, limit in scope.limits:
                before, after = cost(name, use.charge), cost(name, charge)
                own = before if counts(name, use.at_ms, now_ms) else 0
                if after > before and self.used(scope.name, name, now_ms) - own + after > limit:
                    return False
        self.recount(use, charge, now_ms)
        use.lease_end_ms = now_ms + LEASE_MS
        return True

    def renew(self, request_id: str, used: Charge, now_ms: int) -> None:
        self.expire(now_ms)
        if (use := self.uses.get(request_id)) and use.open:
            most = Charge(max(use.charge.tokens, used.tokens), max(use.charge.money, used.money))
            self.recount(use, most, now_ms)
            use.reported, use.lease_end_ms, use.leased = used, now_ms + LEASE_MS, True

    def count(self, request_id: str, scopes: tuple[Scope, ...], used: Charge, now_ms: int) -> None:
        self.expire(now_ms)
        if use := self.uses.get(request_id):
            self.recount(use, used, now_ms)
            use.reported, use.lease_end_ms, use.leased = used, min(use.lease_end_ms, now_ms), False
        else:
            names = tuple(scope.name for scope in scopes)
            self.uses[request_id] = Use(now_ms, names, used, used, now_ms, leased=False)

    def settle(self, request_id: str, used: Charge, now_ms: int) -> bool:
        self.expire(now_ms)
        if not (use := self.uses.get(request_id)) or not use.open:
            return False
        self.recount(use, used, now_ms)
        use.open = False
        return True

    def recount(self, use: Use, charge: Charge, now_ms: int) -> None:
        for scope in use.scopes:
            for name in (LimitName.TOKENS_PER_MINUTE, LimitName.TOKENS_PER_DAY, LimitName.MONEY_PER_MONTH):
                growth = cost(name, charge) - cost(name, use.charge)
                if growth > 0 and not counts(name, use.at_ms, now_ms):
                    self.late.append((now_ms, scope, name, growth))
        use.charge = charge


def cost(name: LimitName, charge: Charge) -> int:
    ones = {LimitName.REQUESTS_PER_MINUTE: 1, LimitName.CONCURRENT_REQUESTS: 1}
    return ones.get(name, charge.money if name is LimitName.MONEY_PER_MONTH else charge.tokens)


def counts(name: LimitName, at_ms: int, now_ms: int) -> bool:
    """Whether what was used at ``at_ms`` still counts at ``now_ms``."""
    match name:
        case LimitName.TOKENS_PER_DAY:
            return at_ms // DAY_MS == now_ms // DAY_MS
        case LimitName.MONEY_PER_MONTH:
            return _month(at_ms) == _month(now_ms)
        case _:
            return now_ms // SECOND_MS - at_ms // SECOND_MS <= MINUTE_SLOTS


def _month(at_ms: int) -> tuple[int, ...]:
    return time.gmtime(at_ms / 1000)[:2]


ALL = (
    Scope("key:1", ((LimitName.REQUESTS_PER_MINUTE, 6), (LimitName.TOKENS_PER_MINUTE, 100))),
    Scope("key:2", ((LimitName.CONCURRENT_REQUESTS, 2), (LimitName.TOKENS_PER_DAY, 500))),
)
TENANT = Scope("tenant", ((LimitName.TOKENS_PER_MINUTE, 150), (LimitName.MONEY_PER_MONTH, 3000)))
CHARGES = st.builds(Charge, st.integers(0, 60), st.integers(0, 600))
LONG = bool(os.environ.get("MANTA_LONG_TESTS"))
# Use up to the reservation: what exceeds it is attributed by its own rule, which has tests of its own.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "again", "renew", "settle", "count"]),
        st.integers(0, 8),  # which request
        st.sampled_from(ALL),
        CHARGES,
        st.floats(0, 1),  # the share of the charge that was used
        st.sampled_from([0, 1, 400, 1000, 3000, 20_000, 61_000, 40_000_000]),  # ms until the step
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=12_000 if LONG else 300, deadline=None)
def test_decisions_and_counts_are_those_of_the_reference_model(
    steps: list[tuple[str, int, Scope, Charge, float, int]],
) -> None:
    state, reference, now_ms = LimitState(), Reference(), START_MS
    open_ids: dict[int, tuple[str, Charge]] = {}
    scopes_of: dict[str, tuple[Scope, ...]] = {}
    for number, (step, which, key, charge, share, wait_ms) in enumerate(steps):
        now_ms += wait_ms
        request_id, reserved = open_ids.get(which, (f"r{number}", Charge()))
        used = Charge(int(reserved.tokens * share), int(reserved.money * share))
        if step == "reserve":
            request_id, scopes = f"r{number}", (key, TENANT)
            scopes_of[request_id] = scopes
            state, decision = limit_transitions.reserve(
                state, Reservation(request_id, "acme", scopes, charge), LEASE_MS, now_ms
            )
            assert decision.admitted == reference.reserve(request_id, scopes, charge, now_ms)
            if decision.admitted:
                open_ids[which] = (request_id, charge)
            continue
        known = request_id in state.held and now_ms < state.held[request_id].expires_ms + REPORT_KEPT_MS
        if step == "count":
            request_id, ran = (request_id, used) if known else (f"r{number}", charge)
            state = limit_transitions.count(state, Reservation(request_id, "acme", (key, TENANT), ran), now_ms)
            reference.count(request_id, (key, TENANT), ran, now_ms)
            open_ids[which] = (request_id, ran)
            scopes_of.setdefault(request_id, (key, TENANT))
        elif step == "again":
            if known:
                request = Reservation(request_id, "acme", scopes_of[request_id], charge)
                state, decision = limit_transitions.reserve(state, request, LEASE_MS, now_ms)
                assert decision.admitted == reference.again(request_id, request.scopes, charge, now_ms)
                if decision.admitted and state.held[request_id].leased:
                    open_ids[which] = (request_id, charge)
        elif step == "renew":
            state = limit_transitions.renew(state, [Renewal(request_id, "acme", used)], LEASE_MS, now_ms)
            if known:
                reference.renew(request_id, used, now_ms)
        else:
            state, settled = limit_transitions.settle(state, request_id, used, now_ms)
            assert settled == known
            if settled:
                assert reference.settle(request_id, used, now_ms)
        reference.expire(now_ms)
        for use in limit_transitions.limit_uses(state, (*ALL, TENANT), now_ms):
            assert use.used == reference.used(use.scope, use.name, now_ms), use


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_minute_exceeds_its_limit_and_a_wait_is_long_enough(arrivals: list[tuple[int, int, int]]) -> None:
    limits = (Scope("tenant", ((LimitName.TOKENS_PER_MINUTE, 100),)),)
    state, now_ms, uses = LimitState(), START_MS, []
    for number, (gap_ms, tokens, used) in enumerate(arrivals):
        now_ms += gap_ms
        request = Reservation(str(number), "acme", limits, Charge(tokens))
        state, decision = limit_transitions.reserve(state, request, LEASE_MS, now_ms)
        if not decision.admitted:
            wait_ms = decision.uses[0].wait_ms
            assert wait_ms
            _, later = limit_transitions.reserve(state, request, LEASE_MS, now_ms + wait_ms)
            assert later.admitted
            if wait_ms > 1000:
                _, earlier = limit_transitions.reserve(state, request, LEASE_MS, now_ms + wait_ms - 1)
                assert not earlier.admitted
            continue
        used = min(used, tokens)
        state, _ = limit_transitions.settle(state, str(number), Charge(used), now_ms)
        uses.append((now_ms, used))
    for end_ms, _ in uses:
        assert sum(tokens for at_ms, tokens in uses if end_ms - 60_000 < at_ms <= end_ms) <= 100


@pytest.mark.parametrize(("requests", "tokens"), [(60, None), (None, 1000), (60, 1000)])
@pytest.mark.parametrize("phase_ms", [0, 1, 500, 999])
def test_four_times_the_offer_uses_the_allowance_and_no_more(
    requests: int | None, tokens: int | None, phase_ms: int
) -> None:
    """Five minutes of 16 clients that ask again as soon as they are answered."""
    limits = tuple(
        (name, limit)
        for name, limit in ((LimitName.REQUESTS_PER_MINUTE, requests), (LimitName.TOKENS_PER_MINUTE, tokens))
        if limit is not None
    )
    scopes, state, admitted = (Scope("key:1", limits),), LimitState(), []
    running: list[tuple[int, str]] = []
    for step in range(4 * 300):  # one arrival each 250 ms: four times 60 a minute, and 17 tokens each
        now_ms = START_MS + phase_ms + 250 * step
        for end_ms, request_id in [each for each in running if each[0] <= now_ms]:
            state, _ = limit_transitions.settle(state, request_id, Charge(17), end_ms)
            running.remove((end_ms, request_id))
        if len(running) < 16:
            request = Reservation(str(step), "acme", scopes, Charge(25))
            state, decision = limit_transitions.reserve(state, request, 60_000, now_ms)
            if decision.admitted:
                admitted.append(now_ms)
                running.append((now_ms + 800, str(step)))
    rate = min(limit / cost for limit, cost in ((requests or 10**9, 1), (tokens or 10**9, 17)))
    first_minute = sum(at_ms < START_MS + phase_ms + 60_000 for at_ms in admitted)
    assert 0.97 * rate <= first_minute <= rate
    assert 0.97 * 5 * rate <= len(admitted) <= 5 * rate


def test_use_beyond_the_reservation_is_counted_with_it_and_later_if_that_has_passed() -> None:
    scopes = (Scope("tenant", ((LimitName.TOKENS_PER_MINUTE, 100),)),)
    state, _ = limit_transitions.reserve(LimitState(), Reservation("a", "acme", scopes, Charge(10)), 10**6, START_MS)

    early, _ = limit_transitions.settle(state, "a", Charge(90), START_MS + 50_000)
    late, _ = limit_transitions.settle(state, "a", Charge(90), START_MS + 90_000)

    at_ms = START_MS + 90_000
    assert limit_transitions.limit_uses(early, scopes, START_MS + 50_000)[0].used == 90
    assert limit_transitions.limit_uses(early, scopes, at_ms)[0].used == 0
    assert limit_transitions.limit_uses(late, scopes, at_ms)[0].used == 80
