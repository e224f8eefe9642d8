"""``UsageMetrics``: the port to the usage counters for Prometheus. They are for graphs; the ledger is exact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from router.ports.limit_store import LimitName
from safety.api import Stage, Verdict

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


@dataclass(frozen=True, slots=True)
class AdmissionSample:
    """One decision of the admission, and the numbers behind it.

    ``outcome`` is ``admitted``, ``spilled`` (to ``tier``, since another one has refused the request) or ``refused``.
    ``reason`` is the ``Reason`` of the refusal (``router.admission.admission_decision``); "": there was none.
    ``ttft_s`` is the predicted time to the first token, in seconds; None: unknown. ``pressure`` is how near the higher
    classes are to their objectives, 0 to 1. ``waiting`` requests of the class, with ``waiting_tokens`` tokens, wait for
    their first token.
    """

    tier: str
    priority: str
    outcome: str
    reason: str
    ttft_s: float | None
    pressure: float
    waiting: int
    waiting_tokens: int


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
        """Counts a request that another replica continues, or that was given up. ``kind`` is as in
        ``router.generation.attempts.OnFailover``."""
        ...

    def speculation(self, tier: str, outcome: str) -> None:
        """Counts answers that were begun ahead of the checks. ``outcome`` is as in
        ``router.speculative_answers.Speculation``."""
        ...

    def admission(self, sample: AdmissionSample) -> None:
        """Counts a decision of the admission."""
        ...

    def verdicts(self, stage: Stage, verdicts: Iterable[Verdict]) -> None:
        """Counts verdicts of the guard that were given at ``stage``."""
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

    def speculation(self, tier: str, outcome: str) -> None:
        pass

    def admission(self, sample: AdmissionSample) -> None:
        pass

    def verdicts(self, stage: Stage, verdicts: Iterable[Verdict]) -> None:
        pass
