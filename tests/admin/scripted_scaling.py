"""The decisions of an autoscaler, scripted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from cluster.autoscaling.decision import Decisions, Need, Reason, TierDecision, WhyNot
from cluster.autoscaling.decision_store import records_of
from router.ports.tier_scaling import ReplicaBounds, ReplicaPin

NEED = Need(Reason.FLOW, 2.6, 9.0, 4.0, "requests/s")
DECISION = TierDecision(
    "fast",
    3,
    2,
    Reason.FLOW,
    WhyNot(Reason.STEADY, {"need": 2.6}),
    WhyNot(Reason.FLOW, {"need": 2.6}),
    (NEED,),
    {"ready": 2, "fresh": 2, "need": 2.6, "in_flight": 12, "queued_prompt_tokens": 900},
)


class ScriptedScaling:
    """A ``TierScaling`` with one tier."""

    tiers: ClassVar = {"fast": ReplicaBounds(1, 8)}

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s
        self.held: dict[str, ReplicaPin] = {}

    async def decisions(self) -> Sequence[Mapping[str, object]]:
        return records_of(Decisions(self.at_s, {"fast": DECISION}))

    async def pins(self) -> Sequence[ReplicaPin]:
        return list(self.held.values())

    async def pin(self, pin: ReplicaPin) -> None:
        self.held[pin.tier] = pin

    async def unpin(self, tier: str) -> bool:
        return self.held.pop(tier, None) is not None
