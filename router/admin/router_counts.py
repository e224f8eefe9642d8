"""``RouterCounts``: what this router has refused and repaired since its start, beside the counters for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from router.ports.limit_store import LimitName
from router.ports.usage_metrics import AdmissionSample, UsageMetrics, UsageSample
from safety.api import Stage, Verdict


class RouterCounts:
    """Counts, and passes everything on to ``metrics``. Implements ``UsageMetrics``.

    ``limited`` are the requests that limits have refused, by the limit; ``ended`` those that have ended, by outcome;
    ``failovers`` by kind; ``safety`` the decisions of the guard.
    """

    def __init__(self, metrics: UsageMetrics) -> None:
        self._metrics = metrics
        self.ended: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()
        self.failovers: Counter[str] = Counter()
        self.safety: Counter[str] = Counter()

    def count(self, sample: UsageSample) -> None:
        self.ended[sample.outcome] += 1
        if sample.safety:
            self.safety[sample.safety] += 1
        self._metrics.count(sample)

    def near_limit(self, tenant: str, scope: str, limit: LimitName) -> None:
        self._metrics.near_limit(tenant, scope, limit)

    def refused(self, tenant: str, scope: str, limit: LimitName) -> None:
        self.limited[limit.value] += 1
        self._metrics.refused(tenant, scope, limit)

    def failover(self, tier: str, kind: str) -> None:
        self.failovers[kind] += 1
        self._metrics.failover(tier, kind)

    def speculation(self, tier: str, outcome: str) -> None:
        self._metrics.speculation(tier, outcome)

    def admission(self, sample: AdmissionSample) -> None:
        self._metrics.admission(sample)

    def verdicts(self, stage: Stage, verdicts: Iterable[Verdict]) -> None:
        self._metrics.verdicts(stage, verdicts)
