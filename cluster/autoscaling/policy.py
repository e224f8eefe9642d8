"""``decide``: the autoscaling policy. A snapshot in, a target for each tier with its reason out. Pure.

It never blocks, never raises on bad input, and returns its last decision when it is called again within a control
interval. Serve's application-level policy, tests on a virtual clock and the simulator call it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.autoscaling.config import AutoscalingConfig
from cluster.autoscaling.decision import Decisions, Reason, TierDecision, WhyNot
from cluster.autoscaling.snapshot import Snapshot, TierSnapshot


@dataclass(frozen=True, slots=True)
class AutoscalerState:
    """What the policy remembers from one decision to the next. ``AutoscalerState()`` is the state at the start."""

    decisions: Decisions | None = None


def decide(config: AutoscalingConfig, state: AutoscalerState, snapshot: Snapshot) -> tuple[AutoscalerState, Decisions]:
    """Returns the next state, and the target of each tier in ``snapshot`` with its reason.

    The state is new each time, and ``state`` is unchanged. Within ``config.interval_s`` of the last decision, that
    decision and ``state`` are returned.
    """
    decisions = Decisions(snapshot.at_s, {tier.name: _held(tier) for tier in snapshot.tiers})
    return replace(state, decisions=decisions), decisions


def _held(tier: TierSnapshot) -> TierDecision:
    why = WhyNot(Reason.NO_FRESH_DATA)
    return TierDecision(tier.name, tier.target, tier.target, Reason.NO_FRESH_DATA, why, why)
