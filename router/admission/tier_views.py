"""``view_of``: what the admission knows of a tier for one request. Pure.

The time to the first token is what waits before the request, divided by the rate at which the tier starts requests, as
this router has seen it under load. Until it has, the forecast from the replicas' reports counts (``load_forecast``).
"""

from __future__ import annotations

from engine.api import Priority
from router.admission.admission_decision import RequestFacts, TierView
from router.admission.load_forecast import FirstToken, forecast
from router.admission.waiting_room import WaitingRoom
from router.config import AdmissionConfig
from router.ports.tier_backend import TierSnapshot


def view_of(
    facts: RequestFacts,
    snapshot: TierSnapshot,
    room: WaitingRoom,
    config: AdmissionConfig,
    now: float,
) -> TierView:
    """Returns the view of the tier of ``snapshot`` whose admitted requests are in ``room``."""
    waiting, own = room.of(facts.priority), room.own(facts.priority, facts.tenant)
    expected = first_token(facts, snapshot, room, config, now)
    return TierView(
        snapshot.name,
        len(snapshot.replicas),
        snapshot.context_length,
        ttft_s=None if expected is None else expected.ttft_s,
        alone_s=0.0 if expected is None else expected.alone_s,
        wait_limit=room.limits[facts.priority].share,
        started_share=room.rate.share(facts.priority),
        has_little=room.rate.has_little(facts.tenant),
        starving=starving_classes(facts.priority, snapshot.name, room, config, now),
        pressure=pressure(facts.priority, snapshot.name, room, config, now),
        waiting_requests=waiting.requests,
        waiting_tokens=waiting.tokens,
        own_requests=own.requests,
        own_tokens=own.tokens,
        tenants=room.tenants(facts.priority, facts.tenant),
    )


def first_token(
    facts: RequestFacts, snapshot: TierSnapshot, room: WaitingRoom, config: AdmissionConfig, now: float
) -> FirstToken | None:
    """Returns when a request gets its first token; None if nothing is known.

    The class has the rate that those above it leave, which is never below the share ``floor``. While the tenant's
    oldest request of the class has waited longer than the rate would have it, the prediction is no better than that
    wait.
    """
    whole, floor = room.rate.tokens_per_s(now), config.floor
    patience_s = patience(facts.priority, snapshot.name, config)
    if whole is None:
        return forecast(snapshot, facts, room)
    tokens = max(facts.tokens, 1)
    ahead = room.ahead(facts.priority, facts.tenant, tokens)
    if not whole:
        return FirstToken(float("inf") if ahead else 0.0)
    alone_s = tokens / whole
    if not ahead:
        return FirstToken(alone_s, alone_s)
    rate = whole * class_share(facts.priority, room, floor)
    by_turn_s = (ahead + tokens) / rate
    if room.lacks(facts.priority, patience_s, now):  # so the classes above it leave it its least share
        in_class = room.ahead_in_class(facts.priority, facts.tenant, tokens)
        by_turn_s = min(by_turn_s, (in_class + tokens) / (whole * floor))
    return FirstToken(max(by_turn_s, room.oldest_s(facts.priority, facts.tenant, now)), alone_s)


def class_share(priority: Priority, room: WaitingRoom, floor: float) -> float:
    """Returns the share of the tier's rate that the classes above ``priority`` leave, from ``floor`` to 1."""
    higher = room.rate.share(Priority(priority - 1)) if priority > Priority.INTERACTIVE else 0.0
    return max(1.0 - higher, floor)


def pressure(priority: Priority, tier: str, room: WaitingRoom, config: AdmissionConfig, now: float) -> float:
    """Returns how near the classes above ``priority`` are to their objectives, 0 to 1."""
    whole = room.rate.tokens_per_s(now)
    shares = [0.0]
    for higher in (each for each in Priority if each < priority):
        objective = config.terms(tier, higher).ttft_s
        if objective is None or whole is None:
            continue
        backlog = room.backlog(higher)
        rate = whole * class_share(higher, room, config.floor)
        shares.append(backlog / rate / objective if rate else float(backlog > 0))
    return min(max(shares), 1.0)


def starving_classes(priority: Priority, tier: str, room: WaitingRoom, config: AdmissionConfig, now: float) -> int:
    """Returns the number of classes below ``priority`` that get too little."""
    lower = (each for each in Priority if each > priority)
    return sum(room.lacks(each, patience(each, tier, config), now) for each in lower)


def patience(priority: Priority, tier: str, config: AdmissionConfig) -> float:
    """Returns the seconds after which a class that waits gets too little: half its objective, or, without one, the
    longest objective of the classes above it."""
    objective = config.terms(tier, priority).ttft_s
    above = (config.terms(tier, each).ttft_s or 0.0 for each in Priority if each < priority)
    return max(above, default=0.0) if objective is None else objective / 2
