"""``OverviewApi``: the request to ``/admin/v1/overview``, independent of the transport.

::

    GET    /admin/v1/overview             the whole service at a glance, for `manta top`

What cannot be had at the moment is missing in the answer, and ``missing`` says why: an overview is wanted most while
something fails. Counts are since the start of what counts them; who wants rates asks twice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.api import LATENCY_BOUNDS_S, Priority
from router.admin.admin_section import AdminCall
from router.admin.router_counts import RouterCounts
from router.ledger.price import money
from router.ports.clock import Clock
from router.ports.engine_counts import EngineCounts, EngineCountsSource, NoEngineCounts
from router.ports.ledger_store import LedgerQuery, Resolution
from router.ports.state_store import StateStore, StateUnavailableError
from router.ports.tier_backend import TierBackend
from router.ports.tier_scaling import TierScaling
from router.principal import Principal

OVERVIEW = "/admin/v1/overview"
FRESH_S = 0.5
"""Seconds for which an answer is given again: many who look cost no more than one."""
WANTED_S = 2.0
"""Seconds that the autoscaler's store may take: an overview is wanted most while something hangs."""
DAY_S = 86_400
AMOUNTS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "cache_hits")

Breakers = Callable[[], Mapping[str, str]]
"""Returns the state of the circuit breaker before each service, by its name: closed, open or half_open."""


@dataclass(frozen=True, slots=True)
class OverviewSources:
    """What a cluster adds to the overview. ``counts`` reads the counts of the replicas' engines. ``breakers`` returns
    the states of the circuit breakers. ``router`` is the name of this router."""

    counts: EngineCountsSource = field(default_factory=NoEngineCounts)
    breakers: Breakers = dict
    router: str = field(default_factory=lambda: uuid.uuid4().hex[:8])


class OverviewApi:
    """Answers requests of administrators for the overview. ``scaling`` None: all numbers of replicas are fixed.
    ``counted`` has the counts of this router, and ``currency`` is that of the prices."""

    def __init__(
        self,
        backend: TierBackend,
        store: StateStore,
        scaling: TierScaling | None,
        clock: Clock,
        currency: str,
        counted: RouterCounts,
        sources: OverviewSources,
    ) -> None:
        self._backend = backend
        self._store = store
        self._scaling = scaling
        self._clock = clock
        self._currency = currency
        self._counted = counted
        self._sources = sources
        self._asking = asyncio.Lock()
        self._last: dict[str, Any] = {}
        self._decisions: asyncio.Task[Sequence[Mapping[str, object]]] | None = None  # that have been asked for

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        return ("GET",) if path == OVERVIEW else None

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any]:
        """Answers a request whose method and path are among ``methods``. A source that cannot be read is left out, and
        named in the member ``missing``. The same answer is given again for FRESH_S seconds."""
        async with self._asking:
            age_s = self._clock.now() - self._last.get("now", 0.0)
            if not 0 <= age_s < FRESH_S:
                self._last = await self._read()
            return self._last

    async def _read(self) -> dict[str, Any]:
        """Asks all sources at once. What takes longest are replicas that do not answer, and those have 2 s."""
        missing: list[str] = []
        counts, wanted, today = await asyncio.gather(
            self._sources.counts.read(), self._wanted(missing), self._today(missing)
        )
        return {
            "object": "overview",
            "now": self._clock.now(),
            "currency": self._currency,
            "bounds_s": LATENCY_BOUNDS_S,
            "tiers": self._tiers(counts, wanted),
            "today": today,
            "router": self._router(),
            "breakers": {**self._store.health().breakers, **self._sources.breakers()},
            "missing": missing,
        }

    def _tiers(self, counts: Mapping[str, Sequence[EngineCounts]], wanted: Mapping[str, int]) -> list[dict[str, Any]]:
        rows = []
        for tier, now in zip(self._backend.tiers(), self._backend.snapshot(), strict=True):
            engines = counts.get(tier.name)
            rows.append(
                {
                    "tier": tier.name,
                    "model": tier.model,
                    "ready": now.available,
                    "wanted": wanted.get(tier.name, tier.replicas),
                    "replicas": len(now.replicas),
                    "running": now.running,
                    "waiting": now.waiting,
                    "wait_s": now.wait_s if now.ready else None,
                    "kv_used": now.kv_used if now.ready else None,
                    "engines": None if engines is None else summed(engines),
                }
            )
        return rows

    async def _wanted(self, missing: list[str]) -> dict[str, int]:
        """Returns the number of replicas that autoscaling wants of each tier that it scales."""
        if self._scaling is None:
            return {}
        # One question at a time, which goes on after WANTED_S: each holds a thread for as long as the store hangs.
        if self._decisions is None:
            self._decisions = asyncio.ensure_future(self._scaling.decisions())
        asked = self._decisions
        await asyncio.wait({asked}, timeout=WANTED_S)
        if not asked.done():
            missing.append(f"numbers of replicas that are wanted: no answer within {WANTED_S:g} s")
            return {}
        self._decisions = None
        try:
            return {str(each["tier"]): int(str(each["target"])) for each in asked.result()}
        except StateUnavailableError as error:
            missing.append(f"numbers of replicas that are wanted: {error}")
            return {}

    async def _today(self, missing: list[str]) -> dict[str, Any] | None:
        """Returns the sums of the ledger since midnight (UTC), over all routers, tenants and tiers."""
        now = self._clock.now()
        hour_ms = Resolution.HOUR.ms
        query = LedgerQuery(
            int(now // DAY_S) * DAY_S * 1000, (int(now * 1000) // hour_ms + 1) * hour_ms, group_by=("outcome",)
        )
        try:
            sums = await self._store.sums(query)
        except StateUnavailableError:
            missing.append("what was used today: the shared state cannot be reached")
            return None
        amounts: Counter[str] = Counter()
        for each in sums:
            amounts.update(each.amounts)
        outcomes = {each.group["outcome"]: each.amounts.get("requests", 0) for each in sums}
        return {name: amounts[name] for name in AMOUNTS} | {"outcomes": outcomes, "cost": money(amounts["cost"])}

    def _router(self) -> dict[str, Any]:
        counted = self._counted
        return {
            "id": self._sources.router,
            "ended": dict(counted.ended),
            "limited": dict(counted.limited),
            "failovers": dict(counted.failovers),
            "safety": dict(counted.safety),
        }


def summed(engines: Sequence[EngineCounts]) -> dict[str, Any]:
    """Returns the counts of several engines together, as JSON."""
    names = [each.name.lower() for each in Priority]
    classes = {
        name: {
            "waiting": sum(each.waiting.get(name, 0) for each in engines),
            "arrivals": sum(each.arrivals.get(name, 0) for each in engines),
            "refused": sum(each.refused.get(name, 0) for each in engines),
            "ttft": added([each.ttft.get(name, ()) for each in engines]),
        }
        for name in names
    }
    return {
        "replicas": len(engines),
        "classes": classes,
        "itl": added([each.itl for each in engines]),
        "prompt_tokens": sum(each.prompt_tokens for each in engines),
        "cached_tokens": sum(each.cached_tokens for each in engines),
        "generated_tokens": sum(each.generated_tokens for each in engines),
    }


def added(histograms: Sequence[Sequence[int]]) -> list[int]:
    """Returns the sums by bucket. Histograms of a release with other buckets are left out."""
    buckets = len(LATENCY_BOUNDS_S) + 1
    fitting = [each for each in histograms if len(each) == buckets]
    return [sum(column) for column in zip(*fitting, strict=True)] if fitting else [0] * buckets
