"""``view_of``: what the admission knows of a tier for one request. Pure. Instants are seconds of the monotonic clock.

The time to the first token is what waits before the request, divided by the rate at which the tier starts requests, as
this router has seen it under load. Unless it has lately, the forecast from the replicas' reports counts
(``ttft_forecast``).
"""

from __future__ import annotations

from engine.api import Priority
from router.admission.admission_decision import RequestFacts, TierView
from router.admission.admitted_requests import AdmittedRequests
from router.admission.ttft_forecast import TtftForecast, forecast_ttft
from router.admission.wait_limit import MOST
from router.config.admission import AdmissionConfig
from router.ports.tier_backend import TierSnapshot


def view_of(
    facts: RequestFacts,
    snapshot: TierSnapshot,
    admitted: AdmittedRequests,
    config: AdmissionConfig,
    now: float,
) -> TierView:
    """Returns the view of the tier of ``snapshot`` for a request, at the instant ``now``, in seconds of the monotonic
    clock. ``admitted`` has the tier's admitted requests."""
    waiting, own = admitted.of(*ranks_before(facts)), admitted.own(facts.rank, facts.tenant)
    # The queue is that of the tenant that floods, and the engine serves this one before it.
    spared = admitted.shares.beside_flood(facts.tenant)
    expected = first_token(facts, snapshot, admitted, config, now)
    return TierView(
        snapshot.name,
        len(snapshot.replicas),
        snapshot.context_length,
        ttft_s=None if expected is None else expected.ttft_s,
        alone_s=0.0 if expected is None else expected.alone_s,
        wait_limit=MOST if spared else admitted.limits[facts.rank].share,
        started_share=admitted.rate.share(facts.rank, now),
        has_little=admitted.rate.has_little(facts.tenant) or spared,
        starving=0 if facts.surplus else starving_classes(facts.priority, snapshot.name, admitted, config, now),
        pressure=pressure(facts.rank, snapshot.name, admitted, config, now),
        waiting_requests=waiting.requests,
        waiting_tokens=waiting.tokens,
        own_requests=own.requests,
        own_tokens=own.tokens,
        tenants=admitted.tenants(facts.rank, facts.tenant),
    )


def first_token(
    facts: RequestFacts, snapshot: TierSnapshot, admitted: AdmittedRequests, config: AdmissionConfig, now: float
) -> TtftForecast | None:
    """Returns the forecast of a request's time to the first token at the instant ``now``; None if nothing is known.

    A class has the part of the tier's rate that the classes above it leave, at least the share ``config.floor``. The
    prediction is never shorter than the time that the tenant's oldest request of the class has waited already.
    """
    whole, floor = admitted.rate.tokens_per_s(now), config.floor
    patience_s = patience(facts.priority, snapshot.name, config)
    if whole is None:
        return forecast_ttft(snapshot, facts, admitted)
    tokens = max(facts.tokens, 1)
    ahead = admitted.ahead(facts.rank, facts.tenant, tokens)
    if not whole:
        return TtftForecast(float("inf") if ahead else 0.0)
    alone_s = tokens * max(len(snapshot.replicas), 1) / whole  # one replica computes it
    if not ahead:
        return TtftForecast(alone_s, alone_s)
    rate = whole * class_share(facts.rank, admitted, floor, now)
    by_turn_s = (ahead + tokens) / rate
    if admitted.lacks(facts.rank, patience_s, now):  # so the classes above it leave it its least share
        in_class = admitted.ahead_in_class(facts.rank, facts.tenant, tokens)
        by_turn_s = min(by_turn_s, (in_class + tokens) / (whole * floor))
    return TtftForecast(max(by_turn_s, alone_s, admitted.oldest_s(facts.rank, facts.tenant, now)), alone_s)


def ranks_before(facts: RequestFacts) -> tuple[int, ...]:
    """Returns the ranks whose waiting requests fill the queue of a request's class: its own, and, if it is surplus,
    that of the class's requests that are not. So surplus never takes room from them."""
    return (facts.priority, facts.rank) if facts.surplus else (facts.rank,)


def class_share(rank: int, admitted: AdmittedRequests, floor: float, now: float) -> float:
    """Returns the share of the tier's rate that the classes above the one with this ``rank`` leave at the instant
    ``now``, from ``floor`` to 1."""
    higher = admitted.rate.share(rank - 1, now) if rank > Priority.INTERACTIVE else 0.0
    return max(1.0 - higher, floor)


def pressure(rank: int, tier: str, admitted: AdmittedRequests, config: AdmissionConfig, now: float) -> float:
    """Returns how near the classes above the one with this ``rank`` are to their objectives at the instant ``now``, 0
    to 1: the predicted wait of the nearest one, divided by its objective. Surplus is no reason."""
    whole = admitted.rate.tokens_per_s(now)
    shares = [0.0]
    for higher in (each for each in Priority if each < rank):
        objective = config.terms(tier, higher).ttft_s
        if objective is None or whole is None:
            continue
        backlog = admitted.backlog(higher)
        rate = whole * class_share(higher, admitted, config.floor, now)
        shares.append(backlog / rate / objective if rate else float(backlog > 0))
    return min(max(shares), 1.0)


def starving_classes(
    priority: Priority, tier: str, admitted: AdmittedRequests, config: AdmissionConfig, now: float
) -> int:
    """Returns the number of classes below ``priority`` that get too little at the instant ``now``
    (``AdmittedRequests.lacks``)."""
    lower = (each for each in Priority if each > priority)
    return sum(admitted.lacks(each, patience(each, tier, config), now) for each in lower)


def patience(priority: Priority, tier: str, config: AdmissionConfig) -> float:
    """Returns the seconds after which a class that waits gets too little: half its objective, or, without one, the
    longest objective of the classes above it (0 if these have none either)."""
    objective = config.terms(tier, priority).ttft_s
    above = (config.terms(tier, each).ttft_s or 0.0 for each in Priority if each < priority)
    return max(above, default=0.0) if objective is None else objective / 2
