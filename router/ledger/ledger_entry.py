"""``RequestEntry``: the ledger entry of one request, with the tokens that it used and its cost. It has no text of
prompts or answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from router.ports.ledger_store import REQUESTS, LedgerEntry
from router.ports.limit_store import MONEY_UNITS
from router.ports.usage_metrics import UsageSample
from safety.api import Action, Inspection, Ruling, Verdict

MAX_VERDICTS = 8
PENDING = "pending"
"""The decision of the guard on a request whose router was killed while it was checked, or whose answer was begun then.
"""
CACHE_HITS = ("exact", "semantic")
"""The values of ``RequestEntry.cache`` that mean that a stored answer was given."""
JWT_KEY = "jwt"
"""All JWTs share one ``key`` label; one per subject would create too many sums."""


class Outcome(StrEnum):
    """The way in which a request ended."""

    FINISHED = "finished"  # the whole answer was generated
    FAILED = "failed"  # with an error, or over the time limit
    CANCELLED = "cancelled"  # the client left


@dataclass(frozen=True, slots=True)
class SafetyEntry:
    """The guard's part of a ledger entry: the decision in one word, the version of the policy, and the verdicts as
    ``check@version:action:category:score``, or with the error instead of the score. At most MAX_VERDICTS are kept."""

    decision: str
    policy: str = ""
    verdicts: tuple[str, ...] = ()


def safety_of(ruling: Ruling | None, inspections: Sequence[Inspection]) -> SafetyEntry:
    """Returns the guard's part of a request's ledger entry: its decision on the request (None: the request was not
    inspected), and its checks of the answers."""
    if ruling is None:
        return SafetyEntry("unscanned")
    of_answers = [verdict for inspection in inspections for verdict in inspection.verdicts]
    verdicts = sorted((*ruling.verdicts, *of_answers), key=lambda verdict: -verdict.action.severity)
    return SafetyEntry(decision_of(ruling, inspections), ruling.policy, tuple(map(_line, verdicts[:MAX_VERDICTS])))


def decision_of(ruling: Ruling | None, inspections: Sequence[Inspection]) -> str:
    """Returns the decision in one word: that on the request (None: it was not inspected), unless the answers had a more
    severe one."""
    if ruling is None:
        return "unscanned"
    of_answers = [verdict for inspection in inspections for verdict in inspection.verdicts]
    if any(verdict.action is Action.BLOCK for verdict in of_answers):
        return "blocked"
    if ruling.label in ("allowed", "redacted"):
        if any(verdict.error is not None for verdict in of_answers):
            return "unscanned"
        if any(verdict.action is Action.REDACT for verdict in of_answers):
            return "redacted"
    return ruling.label


def _line(verdict: Verdict) -> str:
    found = f"{verdict.score:.3f}" if verdict.error is None else verdict.error
    return f"{verdict.check}@{verdict.version}:{verdict.action}:{verdict.category}:{found}"[:128]


@dataclass(frozen=True, slots=True)
class RequestEntry:
    """The tokens that one request used, and its cost.

    ``input_tokens`` includes ``cached_input_tokens``, ``output_tokens`` includes ``reasoning_tokens``. ``price`` is per
    million tokens: input, cached input, output; ``price_version`` is the version of the price list. ``cost`` is in
    units of 1e-9 of the currency. ``exact``: the counts are the engine's own, not estimates. ``error`` is the code of
    the error that the client got. Times are in seconds since the epoch; ``first_event_at`` None: no answer had begun.
    ``safety`` is the guard's part. ``variant`` and ``cache`` are as in ``Account``, ``template_version`` as in
    ``InferenceRequest``.
    """

    id: str
    request_id: str
    tenant: str
    team: str
    feature: str
    user: str
    key_id: str
    endpoint: str
    tier: str
    model: str
    version: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    price: tuple[float, float, float]
    price_version: str
    cost: int
    outcome: Outcome
    error: str | None
    exact: bool
    started_at: float
    first_event_at: float | None
    ended_at: float
    safety: SafetyEntry
    variant: str | None = None
    cache: str | None = None
    template_version: str | None = None

    @property
    def sample(self) -> UsageSample:
        """The request's sample for the Prometheus counters."""
        cost = self.cost / MONEY_UNITS
        tokens = self.input_tokens, self.cached_input_tokens, self.output_tokens
        safety = self.safety.decision if self.safety.policy else ""
        return UsageSample(self.tenant, self.tier, self.outcome.value, *tokens, cost, safety)

    @property
    def members(self) -> dict[str, Any]:
        """The entry as a dictionary of JSON's types, by the names of the fields. Faster than
        ``dataclasses.asdict``, which copies each value deeply."""
        safety = {name: getattr(self.safety, name) for name in SAFETY_FIELDS}
        return {**{name: getattr(self, name) for name in ENTRY_FIELDS}, "safety": safety}

    def stored(self, part: str = "") -> LedgerEntry:
        """Returns the entry in the form that the ledger store takes. Its time is the time at which the request ended.

        ``part`` is the id of the part, if this is only a part of a request's entry; "": it is the whole entry.
        """
        labels = {
            "team": self.team,
            "feature": self.feature,
            "tier": self.tier,
            "version": self.version,
            "key": JWT_KEY if self.key_id.startswith("jwt:") else self.key_id,
            "outcome": self.outcome.value,
        }
        amounts = {
            REQUESTS: 1,
            "input_tokens": self.input_tokens,
            "cached_input_tokens": self.cached_input_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cache_hits": int(self.cache in CACHE_HITS),
            "cost": self.cost,
        }
        at_ms, document = int(self.ended_at * 1000), json.dumps(self.members)
        return LedgerEntry(part or self.id, self.tenant, at_ms, labels, amounts, document, self.id if part else "")


ENTRY_FIELDS = tuple(field.name for field in fields(RequestEntry))
SAFETY_FIELDS = tuple(field.name for field in fields(SafetyEntry))
