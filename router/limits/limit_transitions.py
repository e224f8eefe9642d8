"""Limits of one tenant: ``reserve``, ``renew``, ``settle`` and ``count``, pure state transitions.

Each function first settles the reservations whose lease has run out. ``cluster/state/scripts/limits.lua`` computes the
same in Redis. A property-based test runs the same operations on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.limits.limit_periods import Counter, added, pruned, reset_ms, slots_at, wait_ms
from router.ports.limit_store import Charge, LimitDecision, LimitName, LimitUse, Renewal, Reservation, Scope

CONCURRENCY_WAIT_MS = 1000
"""How long a request is asked to wait when too many run at once. Nothing says when one of them ends."""
REPORT_KEPT_MS = 3_600_000
"""How long a reservation is remembered after its lease has run out, so that a late settlement is still counted."""

CounterKey = tuple[str, LimitName]
"""A scope's name and a limit that is counted in slots."""


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation that was admitted.

    ``scopes`` are the names of its scopes, ``places`` the counters that hold its tokens and money, each with the slot.
    ``counted`` is the amount that this reservation adds to the counters. ``used`` is the usage that was reported last.
    ``expires_ms`` is the end of its lease, in milliseconds since the epoch. ``leased``: the lease has not run out.
    """

    scopes: tuple[str, ...]
    places: tuple[tuple[CounterKey, int], ...]
    counted: Charge
    used: Charge
    expires_ms: int
    leased: bool = True


@dataclass(frozen=True, slots=True)
class LimitState:
    """All counters and reservations of one tenant. Treated as immutable."""

    counters: Mapping[CounterKey, Counter] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)


def reserve(
    state: LimitState, reservation: Reservation, lease_ms: int, now_ms: int
) -> tuple[LimitState, LimitDecision]:
    """Reserves the charge in all scopes if each has room for it, else in none. Returns the next state and the decision.

    With the id of an open reservation, the charge takes the place of the former one, and the request is not counted
    again: what does not grow has room. If something grows beyond the room, the reservation stays as it was. If the
    lease has run out, or the request was counted, it is admitted without effect.
    """
    state = expire(state, now_ms)
    if (held := state.held.get(reservation.id)) is not None:
        if held.leased:
            return _reserve_again(state, held, reservation, lease_ms, now_ms)
        return state, LimitDecision(limit_uses(state, reservation.scopes, now_ms))
    uses = _uses(state, reservation.scopes, reservation.charge, now_ms)
    if not (decision := LimitDecision(uses)).admitted:
        return state, decision
    counters, held = _taken(state, reservation, now_ms)
    held = replace(held, used=Charge(), expires_ms=now_ms + lease_ms, leased=True)
    state = LimitState(counters, {**state.held, reservation.id: held})
    return state, LimitDecision(limit_uses(state, reservation.scopes, now_ms))


def _reserve_again(
    state: LimitState, held: Held, reservation: Reservation, lease_ms: int, now_ms: int
) -> tuple[LimitState, LimitDecision]:
    """Replaces the charge of an open reservation, as ``reserve`` says. What was reported as used stays counted."""
    charge, used = reservation.charge, held.used
    charge = Charge(max(charge.tokens, used.tokens), max(charge.money, used.money))
    others = _recount(state, held, Charge(), now_ms)
    decision = LimitDecision(_uses(others, reservation.scopes, charge, now_ms, held.counted))
    if not decision.admitted:
        return state, decision
    state = _recount(state, held, charge, now_ms)
    held = replace(held, counted=charge, expires_ms=now_ms + lease_ms, leased=True)
    state = replace(state, held={**state.held, reservation.id: held})
    return state, LimitDecision(limit_uses(state, reservation.scopes, now_ms))


def renew(state: LimitState, renewals: Sequence[Renewal], lease_ms: int, now_ms: int) -> LimitState:
    """Extends the leases of ``renewals`` and stores the usage of their requests so far. Usage above the reservation is
    added to the counters. Unknown ids are ignored."""
    state = expire(state, now_ms)
    for renewal in renewals:
        if (held := state.held.get(renewal.id)) is None:
            continue
        counted = Charge(max(held.counted.tokens, renewal.used.tokens), max(held.counted.money, renewal.used.money))
        state = _recount(state, held, counted, now_ms)
        renewed = replace(held, counted=counted, used=renewal.used, expires_ms=now_ms + lease_ms, leased=True)
        state = replace(state, held={**state.held, renewal.id: renewed})
    return state


def settle(state: LimitState, reservation_id: str, used: Charge, now_ms: int) -> tuple[LimitState, bool]:
    """Replaces the reserved charge by ``used``, and deletes the reservation. Returns the next state, and whether the
    reservation was known. For an unknown one, nothing is charged."""
    state = expire(state, now_ms)
    if (held := state.held.get(reservation_id)) is None:
        return state, False
    state = _recount(state, held, used, now_ms)
    return replace(state, held={key: each for key, each in state.held.items() if key != reservation_id}), True


def count(state: LimitState, reservation: Reservation, now_ms: int) -> LimitState:
    """Counts the charge of ``reservation``, which is what its request has used, whatever room there is; if it was
    reserved, instead of that. It is remembered like a reservation whose lease has run out, so that it counts once."""
    state = expire(state, now_ms)
    used = reservation.charge
    if (held := state.held.get(reservation.id)) is not None:
        state = _recount(state, held, used, now_ms)
        counted = replace(held, counted=used, used=used, expires_ms=min(held.expires_ms, now_ms), leased=False)
        return replace(state, held={**state.held, reservation.id: counted})
    counters, counted = _taken(state, reservation, now_ms)
    return LimitState(counters, {**state.held, reservation.id: counted})


def _taken(state: LimitState, reservation: Reservation, now_ms: int) -> tuple[dict[CounterKey, Counter], Held]:
    """Returns the counters with the charge of ``reservation``, and what is remembered of it, without a lease."""
    counters, places = dict(state.counters), []
    for scope in reservation.scopes:
        for name, _ in scope.limits:
            if name is LimitName.CONCURRENT_REQUESTS:
                continue
            key = (scope.name, name)
            first, slot = slots_at(name, now_ms)
            counters[key] = added(pruned(counters.get(key, {}), first), slot, _amount(name, reservation.charge))
            if name is not LimitName.REQUESTS_PER_MINUTE:
                places.append((key, slot))
    names, charge = tuple(scope.name for scope in reservation.scopes), reservation.charge
    return counters, Held(names, tuple(places), charge, charge, now_ms, leased=False)


def expire(state: LimitState, now_ms: int) -> LimitState:
    """Returns the state at the time ``now_ms``, in milliseconds since the epoch: reservations whose lease has run out
    are settled to the usage that was reported last. They are kept for an hour, since their request may still report."""
    for key, held in state.held.items():
        if held.expires_ms > now_ms:
            continue
        if held.leased:
            state = _recount(state, held, held.used, now_ms)
            held = replace(held, counted=held.used, leased=False)
        kept = {key: held} if held.expires_ms + REPORT_KEPT_MS > now_ms else {}
        state = replace(state, held={each: state.held[each] for each in state.held if each != key} | kept)
    return state


def limit_uses(state: LimitState, scopes: Sequence[Scope], now_ms: int) -> tuple[LimitUse, ...]:
    """Returns the state of all limits of ``scopes``, with ``wait_ms`` 0."""
    return tuple(replace(use, wait_ms=0) for use in _uses(expire(state, now_ms), scopes, Charge(), now_ms))


def _uses(
    state: LimitState, scopes: Sequence[Scope], charge: Charge, now_ms: int, counted: Charge | None = None
) -> tuple[LimitUse, ...]:
    """Returns the state of all limits of ``scopes``, and how long a request with ``charge`` has to wait for each.
    ``counted``: what is counted of the request already, as a request and as an open one too; None: nothing. Up to that
    much has room. It is not in ``state`` as tokens and money."""
    uses = []
    for scope in scopes:
        for name, limit in scope.limits:
            if name is LimitName.CONCURRENT_REQUESTS:
                active = sum(held.leased and scope.name in held.scopes for held in state.held.values())
                wait = 0 if counted is not None or active < limit else CONCURRENCY_WAIT_MS
                uses.append(LimitUse(scope.name, name, limit, active, 0, wait))
                continue
            counter = pruned(state.counters.get((scope.name, name), {}), slots_at(name, now_ms)[0])
            amount = _amount(name, charge)
            if counted is not None and amount <= _amount(name, counted):
                amount = 0
            wait_for = wait_ms(name, counter, limit, amount, now_ms)
            reset = reset_ms(name, counter, now_ms)
            uses.append(LimitUse(scope.name, name, limit, sum(counter.values()), reset, wait_for))
    return tuple(uses)


def _recount(state: LimitState, held: Held, charge: Charge, now_ms: int) -> LimitState:
    """Returns ``state`` with ``charge`` in the counters of ``held`` instead of what they hold of it.

    The difference belongs to the slot of the reservation. If that slot has expired, an excess goes to the
    current slot.
    """
    counters = dict(state.counters)
    for key, slot in held.places:
        _, name = key
        difference = _amount(name, charge) - _amount(name, held.counted)
        first, current = slots_at(name, now_ms)
        if slot >= first:
            counters[key] = added(counters.get(key, {}), slot, difference)
        elif difference > 0:
            counters[key] = added(counters.get(key, {}), current, difference)
    return replace(state, counters=counters)


def _amount(name: LimitName, charge: Charge) -> int:
    """Returns what a request with ``charge`` adds to a limit that is counted in slots."""
    match name:
        case LimitName.REQUESTS_PER_MINUTE:
            return 1
        case LimitName.MONEY_PER_MONTH:
            return charge.money
        case _:
            return charge.tokens
