"""``UsageMetrics``: the port to the usage counters for Prometheus. They are for graphs; the ledger is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from router.ports.limit_store import LimitName

REFUSED = "refused"
"""The outcome of a request that was refused for what it asks. In the ledger it has failed, but the service has not."""


@dataclass(frozen=True, slots=True)
class UsageSample:
    """The usage of one request. ``input_tokens`` includes ``cached_input_tokens``. ``cost`` is in the currency of the
    prices. ``outcome`` is ``finished``, ``cancelled``, ``failed`` by a fault of the service, or REFUSED.
    ``safety`` is the decision of the guard in one word, and empty for a request that it does not inspect."""

    tenant: str
    tier: str
    outcome: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: float
    safety: str = ""


class UsageMetrics(Protocol):
    """The counters of one router. The labels are tenant, tier and outcome; team, feature and key would be too many."""

    def count(self, sample: UsageSample) -> None:
        """Counts a request that has ended."""
        ...

    def near_limit(self, tenant: str, scope: str, limit: LimitName) -> None:
        """Counts a request after which a limit is nearly used up. ``scope`` is the owner of the limit: ``key`` or
        ``tenant``."""
        ...

    def refused(self, tenant: str, scope: str, limit: LimitName) -> None:
        """Counts a request that a limit refused. ``scope`` is the owner of the limit: ``key`` or ``tenant``."""
        ...

    def failover(self, tier: str, kind: str) -> None:
        """Counts a request that another replica continues, or that was given up. ``kind`` is one of a few words."""
        ...


class NoUsageMetrics:
    """Counts nothing. Implements ``UsageMetrics``."""

    def count(self, sample: UsageSample) -> None:
        pass

    def near_limit(self, tenant: str, scope: str, limit: LimitName) -> None:
        pass

    def refused(self, tenant: str, scope: str, limit: LimitName) -> None:
        pass

    def failover(self, tier: str, kind: str) -> None:
        pass
