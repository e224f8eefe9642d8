"""``RayCacheMetrics``: the counters of the answer cache, as Ray metrics, which Prometheus scrapes from every node.

======================================  ======================================  ======================================
counter                                 labels                                  unit
======================================  ======================================  ======================================
ray_manta_cache_requests_total          tenant, status                          requests, by the header x-manta-cache
ray_manta_cache_reasons_total           status, reason                          the same, of all tenants, and why
ray_manta_cache_stored_total            tenant                                  answers that were stored
ray_manta_cache_unstored_total          reason                                  answers that were not, and why
ray_manta_cache_poisoned_total                                                  entries that could not be read
ray_manta_cache_judged_total            tenant, judge, wrong                    hits that were judged right or wrong
======================================  ======================================  ======================================

Beyond ``telemetry.metrics.max_tenants`` all tenants are counted as OTHERS. Each series has the label ``application``.
Reasons have no tenant: with it they would be more series than all other metrics of a router.
"""

from __future__ import annotations

from cluster.telemetry.bounded_label import OTHER, FirstLabels, bounded
from cluster.telemetry.instruments import Instruments, RayInstruments
from cluster.telemetry.tenant_labels import MAX_TENANTS, tenant_labels
from router.cache.found_answer import CacheStatus
from router.ports.answer_cache import HitJudge

MAX_REASONS = 64
"""There are some 45, of several rooms. Those for which a near question is refused come from the semantic index, whose
process may be of another release; further ones are ``other``."""
STATUSES = frozenset(CacheStatus)
JUDGES = frozenset(HitJudge)


class RayCacheMetrics:
    """Counts the look-ups of the answer cache of the router in this process. Implements ``CacheMetrics``.
    ``instruments`` None: Ray's. ``max_tenants`` tenants have labels of their own."""

    def __init__(self, instruments: Instruments | None = None, max_tenants: int = MAX_TENANTS) -> None:
        make = instruments or RayInstruments()
        self._label = tenant_labels(max_tenants)
        self._pairs, self._unstored_reason = FirstLabels(MAX_REASONS), FirstLabels(MAX_REASONS)
        self._asked = make.counter(
            "manta_cache_requests", "Requests, by what the answer cache did.", ("tenant", "status")
        )
        self._reasons = make.counter("manta_cache_reasons", "Requests, by why it did that.", ("status", "reason"))
        self._stored = make.counter("manta_cache_stored", "Answers that were stored.", ("tenant",))
        self._unstored = make.counter("manta_cache_unstored", "Answers that were not stored.", ("reason",))
        self._poisoned = make.counter("manta_cache_poisoned", "Stored answers that could not be read.")
        self._judged = make.counter("manta_cache_judged", "Hits that were judged.", ("tenant", "judge", "wrong"))

    def asked(self, tenant: str, status: str, reason: str) -> None:
        status = bounded(status, STATUSES)
        self._asked.inc(1, {"tenant": self._label(tenant), "status": status})
        is_known = self._pairs(f"{status} {reason}") != OTHER
        self._reasons.inc(1, {"status": status, "reason": reason if is_known else OTHER})

    def stored(self, tenant: str) -> None:
        self._stored.inc(1, {"tenant": self._label(tenant)})

    def unstored(self, tenant: str, reason: str) -> None:
        self._unstored.inc(1, {"reason": self._unstored_reason(reason)})

    def poisoned(self) -> None:
        self._poisoned.inc(1)

    def judged(self, tenant: str, judge: str, *, wrong: bool) -> None:
        labels = {"tenant": self._label(tenant), "judge": bounded(judge, JUDGES)}
        self._judged.inc(1, {**labels, "wrong": str(wrong).lower()})
