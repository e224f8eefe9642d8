"""``DecisionLog``: which decisions the log has a line of. Reads no clock."""

from __future__ import annotations

from cluster.autoscaling.decision import Decisions, Reason, TierDecision
from cluster.autoscaling.explain import explain

AGAIN_S = 300.0
"""Seconds after which a limit that holds is logged again."""

CAPS = frozenset({Reason.MAXIMUM, Reason.GPU_BUDGET, Reason.PINNED, Reason.UNCONFIRMED})
"""Why a tier may get fewer replicas than its load needs, for as long as somebody does something about it."""

HELD = frozenset({Reason.NO_FRESH_DATA, Reason.BAD_INPUT, Reason.NOT_CONFIGURED})
"""Why a target may stay without a look at the load."""


class DecisionLog:
    """The lines on the decisions for one application, one decision after the other."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, Reason], float] = {}  # instants of the last lines on limits

    def lines(self, decisions: Decisions) -> list[str]:
        """Returns a line for each decision that changes a target, and for each that is limited, at first and then every
        AGAIN_S seconds: a maximum that is too low may hold for hours without a change."""
        every = (*decisions.tiers.values(), *decisions.followers.values())
        return [_line(decision) for decision in every if self._is_news(decision, decisions.at_s)]

    def _is_news(self, decision: TierDecision, at_s: float) -> bool:
        limit = limit_of(decision)
        if limit is not None:
            logged_s = self._logged.get((decision.tier, limit))
            if logged_s is None or not 0 <= at_s - logged_s < AGAIN_S:
                self._logged[decision.tier, limit] = at_s
                return True
        return decision.target != decision.previous


def limit_of(decision: TierDecision) -> Reason | None:
    """Returns why the tier has fewer replicas than its load needs, or why the need is not known; None if neither is so,
    or the tier is about to get them."""
    if decision.reason in HELD:
        return decision.reason
    why = decision.why_not_more.reason
    short = why is Reason.UNCONFIRMED or decision.numbers.get("need", 0.0) > decision.target
    return why if why in CAPS and short else None


def _line(decision: TierDecision) -> str:
    return f"Autoscaling: {explain(decision)}".replace("\n", " | ")
