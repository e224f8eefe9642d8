"""``RayUsageMetrics``: the usage counters, as Ray metrics, which Prometheus scrapes from every node.

======================================  ======================================  ======================================
counter                                 labels                                  unit
======================================  ======================================  ======================================
ray_manta_requests_total                tenant, tier, outcome                   requests that have ended
ray_manta_tokens_total                  tenant, tier, direction                 tokens
ray_manta_cost_total                    tenant, tier                            the currency of ``router.prices``
ray_manta_limit_warnings_total          tenant, scope, limit                    requests after which a limit was nearly
                                                                                used up (``router.limits.warn_at``)
ray_manta_limit_refusals_total          tenant, scope, limit                    requests for which a limit had no room
ray_manta_failovers_total               tier, kind                              requests that another replica went on
                                                                                with, or was asked to
ray_manta_speculations_total            tier, outcome                           answers begun ahead of the checks
ray_manta_safety_decisions_total        tenant, decision                        requests that the guard inspected
ray_manta_safety_verdicts_total         stage, check, category, action          verdicts of the guard
ray_manta_admissions_total              tier, class, outcome, reason            decisions of the admission
ray_manta_admission_ttft_seconds        tier, class                             gauge: the time to the first token that
                                                                                the last decision has predicted
ray_manta_admission_waiting_requests    tier, class                             gauge: admitted, without first token
ray_manta_admission_waiting_tokens      tier, class                             gauge: their tokens, by estimate
ray_manta_admission_pressure            tier, class                             gauge: how near the higher classes are
                                                                                to their objectives, 0 to 1
======================================  ======================================  ======================================

``kind`` is resumed (after what was sent), restarted (nothing was sent), moved (the replica was stopped as planned),
other_version (by a replica with another version of the model) or poison (given up after it was lost with several).
``outcome`` of a speculation is kept, refused or changed (by the checks), late (they took too long), or left (by the
client).
``outcome`` of an admission is admitted, spilled (to this tier) or refused; ``reason`` is why, and ``none`` if admitted.
``decision`` is allowed, redacted, review, blocked or unscanned (a check did not run). ``verdict_labels.py`` has the
labels of verdicts. ``direction`` is input, cached_input (a part of input) or output. Each series has the label
``application``, too. Requests whose router was killed are in the ledger, but not here.

Beyond ``telemetry.metrics.max_tenants`` all tenants are counted as OTHERS. ``tier`` is one of the config, or
``embeddings`` or ``moderation``. Any other label has the values listed below, and ``other`` for all that are unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cluster.telemetry.bounded_label import bounded
from cluster.telemetry.instruments import Instruments, RayInstruments
from cluster.telemetry.tenant_labels import MAX_TENANTS, tenant_labels
from cluster.telemetry.verdict_labels import VerdictLabels, verdict_labels
from engine.api import Priority
from router.admission.admission_decision import Reason
from router.ledger.ledger_entry import Outcome
from router.ports.limit_store import LimitName
from router.ports.usage_metrics import REFUSED, AdmissionSample, UsageSample
from router.speculative_answers import Speculation
from safety.api import Stage, Verdict

NO_REASON = "none"
DECISIONS = frozenset({"allowed", "redacted", "review", "blocked", "unscanned"})
OUTCOMES = frozenset({*Outcome, REFUSED})
SCOPES = frozenset({"key", "tenant"})
FAILOVERS = frozenset({"resumed", "restarted", "moved", "other_version", "poison"})
CLASSES = frozenset(each.name.lower() for each in Priority)
ADMISSIONS = frozenset({"admitted", "spilled", "refused"})
SPECULATIONS = frozenset(Speculation)
REASONS = frozenset({*Reason, NO_REASON})


class RayUsageMetrics:
    """Counts the requests, tokens and costs of the router in this process. Implements ``UsageMetrics``. ``instruments``
    None: Ray's. ``max_tenants`` tenants have labels of their own."""

    def __init__(self, instruments: Instruments | None = None, max_tenants: int = MAX_TENANTS) -> None:
        make = instruments or RayInstruments()
        self._label = tenant_labels(max_tenants)
        self._requests = make.counter("manta_requests", "Requests that have ended.", ("tenant", "tier", "outcome"))
        self._tokens = make.counter(
            "manta_tokens", "Tokens of requests that have ended.", ("tenant", "tier", "direction")
        )
        self._cost = make.counter(
            "manta_cost", "What requests have cost, in the currency of the prices.", ("tenant", "tier")
        )
        limits = ("tenant", "scope", "limit")
        self._warnings = make.counter(
            "manta_limit_warnings", "Requests after which a limit was nearly used up.", limits
        )
        self._refusals = make.counter("manta_limit_refusals", "Requests for which a limit had no room.", limits)
        self._failovers = make.counter(
            "manta_failovers", "Requests that another replica went on with.", ("tier", "kind")
        )
        self._speculations = make.counter(
            "manta_speculations", "Answers that were begun ahead of the checks.", ("tier", "outcome")
        )
        self._decisions = make.counter(
            "manta_safety_decisions", "Requests that the guard inspected, by its decision.", ("tenant", "decision")
        )
        self._verdicts = make.counter("manta_safety_verdicts", "Verdicts of the guard.", VerdictLabels._fields)
        self._admissions = make.counter(
            "manta_admissions", "Decisions of the admission.", ("tier", "class", "outcome", "reason")
        )
        gauges = {
            "ttft_seconds": "The predicted time to the first token of the last request.",
            "waiting_requests": "Admitted requests that wait for their first token.",
            "waiting_tokens": "The tokens of the requests that wait for their first token.",
            "pressure": "How near the higher classes are to their objectives, 0 to 1.",
        }
        self._admission = {
            name: make.gauge(f"manta_admission_{name}", words, ("tier", "class")) for name, words in gauges.items()
        }

    def count(self, sample: UsageSample) -> None:
        labels = {"tenant": self._label(sample.tenant), "tier": sample.tier}
        self._requests.inc(1, {**labels, "outcome": bounded(sample.outcome, OUTCOMES)})
        amounts = {
            "input": sample.input_tokens,
            "cached_input": sample.cached_input_tokens,
            "output": sample.output_tokens,
        }
        for direction, amount in amounts.items():
            if amount > 0:  # Ray refuses to add 0
                self._tokens.inc(amount, {**labels, "direction": direction})
        if sample.cost > 0:
            self._cost.inc(sample.cost, labels)
        if sample.safety:
            decision = bounded(sample.safety, DECISIONS)
            self._decisions.inc(1, {"tenant": labels["tenant"], "decision": decision})

    def near_limit(self, tenant: str, scope: str, limit: LimitName) -> None:
        self._warnings.inc(1, {"tenant": self._label(tenant), "scope": bounded(scope, SCOPES), "limit": limit.value})

    def refused(self, tenant: str, scope: str, limit: LimitName) -> None:
        self._refusals.inc(1, {"tenant": self._label(tenant), "scope": bounded(scope, SCOPES), "limit": limit.value})

    def failover(self, tier: str, kind: str) -> None:
        self._failovers.inc(1, {"tier": tier, "kind": bounded(kind, FAILOVERS)})

    def speculation(self, tier: str, outcome: str) -> None:
        self._speculations.inc(1, {"tier": tier, "outcome": bounded(outcome, SPECULATIONS)})

    def admission(self, sample: AdmissionSample) -> None:
        labels = {"tier": sample.tier, "class": bounded(sample.priority, CLASSES)}
        outcome, reason = bounded(sample.outcome, ADMISSIONS), bounded(sample.reason or NO_REASON, REASONS)
        self._admissions.inc(1, {**labels, "outcome": outcome, "reason": reason})
        values = {
            "ttft_seconds": sample.ttft_s,
            "waiting_requests": sample.waiting,
            "waiting_tokens": sample.waiting_tokens,
            "pressure": sample.pressure,
        }
        for name, value in values.items():
            if value is not None:
                self._admission[name].set(value, labels)

    def verdicts(self, stage: Stage, verdicts: Iterable[Verdict]) -> None:
        for labels, count in Counter(verdict_labels(each, stage) for each in verdicts).items():
            self._verdicts.inc(count, labels._asdict())
