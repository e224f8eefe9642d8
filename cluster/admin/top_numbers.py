"""``glance``: the numbers that ``manta top`` shows, from overviews of the admin API. Pure.

A rate is a difference of counts over time, so it needs two overviews. Counts go back when a replica ends and another
begins at 0: then the rate is too low for as long as both are in the window, and never negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Overview = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in seconds: upper bounds of buckets. None: there is no value."""

    p50_s: float | None = None
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class TierNumbers:
    """A tier now. ``ready``: it takes requests, as ``TierSnapshot.available``. ``wanted`` is the number of replicas
    that it should have, ``replicas`` the number of those that are ready. ``running`` and ``waiting`` count sequences on
    them. ``wait_s`` is the estimated seconds until one more sequence starts. ``kv_used`` is the share of the KV blocks
    in use, 0 to 1. None: not known."""

    tier: str
    model: str
    ready: bool
    wanted: int | None
    replicas: int
    running: int
    waiting: int
    wait_s: float | None
    kv_used: float | None  # 0 to 1
    tokens_per_s: float | None
    ttft: Latency
    itl: Latency


@dataclass(frozen=True, slots=True)
class ClassNumbers:
    """A scheduling class, over all tiers. ``refused`` requests found the queue full, since the engines' start."""

    name: str
    waiting: int
    requests_per_s: float | None
    refused: int
    ttft: Latency


@dataclass(frozen=True, slots=True)
class Glance:
    """The service now. Rates and percentiles are of the last ``window_s``; ``since_start``: percentiles are since the
    engines' start. What begins with ``router`` is of the router that has answered, since its start. ``cache_hit_rate``
    is the share of today's requests. None: not known."""

    tiers: Sequence[TierNumbers] = ()
    classes: Sequence[ClassNumbers] = ()
    window_s: float = 0.0
    since_start: bool = False
    now: float | None = None
    currency: str = ""
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    requests_today: int | None = None
    outcomes_today: Mapping[str, int] = field(default_factory=dict)
    input_tokens_today: int | None = None
    output_tokens_today: int | None = None
    cache_hits_today: int | None = None
    cache_hit_rate: float | None = None
    cost_today: float | None = None
    router: str = ""
    router_limited: int = 0
    router_blocked: int = 0
    router_failovers: int = 0
    breakers: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()


def glance(overviews: Sequence[Overview], *, since_start: bool = False) -> Glance:
    """Returns the numbers of ``overviews``, which are those of one window, the oldest first, at least one.
    ``since_start``: percentiles are over all that the engines have counted."""
    first, last = overviews[0], overviews[-1]
    before = None if first is last else first
    window_s = last["now"] - first["now"]
    bounds = last.get("bounds_s") or ()
    today = last.get("today") or {}
    router, requests = last.get("router") or {}, today.get("requests")
    old = {tier["tier"]: tier for tier in (before or {}).get("tiers", ())}
    tiers = [_tier(tier, old.get(tier["tier"]), window_s, bounds, since_start) for tier in last.get("tiers", ())]
    rates = [tier.tokens_per_s for tier in tiers if tier.tokens_per_s is not None]
    return Glance(
        tiers=tiers,
        classes=_classes(last, before, window_s, since_start),
        window_s=window_s,
        since_start=since_start,
        now=last["now"],
        currency=last.get("currency") or "",
        requests_per_s=_rate(requests, ((before or {}).get("today") or {}).get("requests"), window_s),
        tokens_per_s=sum(rates) if rates else None,
        requests_today=requests,
        outcomes_today=today.get("outcomes") or {},
        input_tokens_today=today.get("input_tokens"),
        output_tokens_today=today.get("output_tokens"),
        cache_hits_today=today.get("cache_hits"),
        cache_hit_rate=today["cache_hits"] / requests if requests else None,
        cost_today=today.get("cost"),
        router=router.get("id") or "",
        router_limited=sum((router.get("limited") or {}).values()),
        router_blocked=(router.get("safety") or {}).get("blocked", 0),
        router_failovers=sum((router.get("failovers") or {}).values()),
        breakers=last.get("breakers") or {},
        missing=last.get("missing") or (),
    )


def percentiles(counts: Sequence[int], bounds: Sequence[float]) -> Latency:
    """Returns the percentiles of a histogram, whose last count is of values above all ``bounds``. Those are given as
    the highest bound."""
    if len(counts) != len(bounds) + 1 or not sum(counts):
        return Latency()
    return Latency(_quantile(counts, bounds, 0.5), _quantile(counts, bounds, 0.99))


def _quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float:
    rank, seen = share * sum(counts), 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if seen >= rank and seen:
            return bound
    return bounds[-1]


def _tier(
    now: Overview, before: Overview | None, window_s: float, bounds: Sequence[float], since_start: bool
) -> TierNumbers:
    engines, old = now.get("engines"), (before or {}).get("engines")
    generated = None if engines is None else engines["generated_tokens"]
    return TierNumbers(
        now["tier"],
        now.get("model") or "",
        bool(now.get("ready")),
        now.get("wanted"),
        now.get("replicas") or 0,
        now.get("running") or 0,
        now.get("waiting") or 0,
        now.get("wait_s"),
        now.get("kv_used"),
        _rate(generated, None if old is None else old["generated_tokens"], window_s),
        _latency(_ttfts(engines), _ttfts(old), bounds, since_start),
        _latency([] if engines is None else [engines["itl"]], [] if old is None else [old["itl"]], bounds, since_start),
    )


def _classes(last: Overview, before: Overview | None, window_s: float, since_start: bool) -> list[ClassNumbers]:
    now, old = _by_class(last), _by_class(before or {})
    bounds = last.get("bounds_s") or ()
    return [
        ClassNumbers(
            name,
            sum(each["waiting"] for each in rows),
            _rate(_arrivals(rows), _arrivals(old[name]) if name in old else None, window_s),
            sum(each["refused"] for each in rows),
            _latency(
                [each["ttft"] for each in rows], [each["ttft"] for each in old.get(name, ())], bounds, since_start
            ),
        )
        for name, rows in now.items()
    ]


def _by_class(overview: Overview) -> dict[str, list[Overview]]:
    """Returns the numbers of each class, one for each tier whose replicas have answered."""
    found: dict[str, list[Overview]] = {}
    for tier in overview.get("tiers", ()):
        for name, numbers in ((tier.get("engines") or {}).get("classes") or {}).items():
            found.setdefault(name, []).append(numbers)
    return found


def _arrivals(rows: Sequence[Overview]) -> int:
    return sum(each["arrivals"] for each in rows)


def _ttfts(engines: Overview | None) -> list[Sequence[int]]:
    """Returns the histograms of all classes."""
    return [] if engines is None else [each["ttft"] for each in engines["classes"].values()]


def _latency(
    now: Sequence[Sequence[int]], before: Sequence[Sequence[int]], bounds: Sequence[float], since_start: bool
) -> Latency:
    """Returns the percentiles of what ``now`` has more than ``before``; ``since_start``: of all."""
    counts = [sum(column) for column in zip(*now, strict=False)]
    if since_start:
        return percentiles(counts, bounds)
    if not before:
        return Latency()
    old = [sum(column) for column in zip(*before, strict=False)]
    return percentiles([max(0, new - was) for new, was in zip(counts, old, strict=False)], bounds)


def _rate(now: float | None, before: float | None, window_s: float) -> float | None:
    if now is None or before is None or window_s <= 0:
        return None
    return max(0.0, now - before) / window_s
