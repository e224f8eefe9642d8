"""``Decisions``: the target number of replicas of each tier, with the reason and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """The reason for a tier's target, or for not choosing a higher or lower one."""

    # Why more
    BACKLOG = "backlog"  # the queue would take too long to prefill
    KV_DEMAND = "kv_demand"  # running and waiting requests need more KV cache than there is
    OBSERVED_TTFT = "observed_ttft"
    REFUSALS = "refusals"
    FLOW = "flow"  # requests arrive faster than fewer replicas serve them
    BATCH_DEADLINE = "batch_deadline"
    STUCK_STARTING = "stuck_starting"  # replicas that never become ready are made up for
    WAITING_ROOM = "waiting_room"  # from zero: requests wait for a first replica
    # Why at least or at most
    FORECAST_FLOOR = "forecast_floor"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    SCHEDULE = "schedule"
    PINNED = "pinned"
    GPU_BUDGET = "gpu_budget"
    # Why fewer
    LOW_LOAD = "low_load"
    IDLE = "idle"  # to zero
    # Which objective fewer replicas would miss, beside those above
    PREDICTED_TTFT = "predicted_ttft"
    PREDICTED_ITL = "predicted_itl"
    # Why no change
    STEADY = "steady"
    DEAD_BAND = "dead_band"
    UNCONFIRMED = "unconfirmed"  # one signal asks for far more than all others support
    STARTING = "starting"  # replicas that start are expected to be enough
    UP_RATE = "up_rate"  # raised a moment ago
    SETTLING = "settling"  # changed a moment ago, and headroom alone asks for more
    DOWN_RATE = "down_rate"  # changed a moment ago
    STABILISING = "stabilising"  # the need was higher within the window
    CONSOLIDATION = "consolidation"  # the rest would not meet the objectives
    NO_FRESH_DATA = "no_fresh_data"
    CLOCK = "clock"  # the clock went back
    BAD_INPUT = "bad_input"
    NOT_CONFIGURED = "not_configured"
    FOLLOWS = "follows"  # a deployment in front of tiers, by the flow into them


@dataclass(frozen=True, slots=True)
class Need:
    """The number of replicas that one signal asks for. Its ``value`` was compared with ``limit``. ``unit`` is the unit
    of both; for latencies it also names the class."""

    reason: Reason
    replicas: float
    value: float
    limit: float
    unit: str


@dataclass(frozen=True, slots=True)
class WhyNot:
    """The reason why the target is not higher, or not lower. ``numbers`` are the inputs of that rule, by name. ``by``
    is the objective that fewer replicas would miss, if that is the reason."""

    reason: Reason
    numbers: Mapping[str, float] = field(default_factory=dict)
    by: Reason | None = None


@dataclass(frozen=True, slots=True)
class TierDecision:
    """The target number of replicas of one tier or follower. ``target == previous`` means no change."""

    tier: str
    target: int
    previous: int
    reason: Reason
    why_not_more: WhyNot
    why_not_fewer: WhyNot
    needs: tuple[Need, ...] = ()  # highest first
    numbers: Mapping[str, float] = field(default_factory=dict)
    warm: int = 0  # replicas that should have loaded the model and serve nothing
    detail: str = ""  # of BAD_INPUT: what is wrong


@dataclass(frozen=True, slots=True)
class Decisions:
    """One decision for the application, made at the instant ``at_s`` of the policy's clock. ``unix_s`` is the time of
    day then, for people; None: ``at_s``."""

    at_s: float
    tiers: Mapping[str, TierDecision] = field(default_factory=dict)
    followers: Mapping[str, TierDecision] = field(default_factory=dict)
    unix_s: float | None = None

    @property
    def time_s(self) -> float:
        """The time of day, in Unix seconds."""
        return self.at_s if self.unix_s is None else self.unix_s
