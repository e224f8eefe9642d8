"""``TierState``: the state that the policy keeps of one tier between decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cluster.autoscaling.arrival_rate import ArrivalCounts
from cluster.autoscaling.error_budget import ErrorBudget
from cluster.autoscaling.forecast_scaling import ForecastScaling
from cluster.autoscaling.replica_model import ReplicaMeasurements
from cluster.autoscaling.steadiness import Steadiness


class NeedPoint(NamedTuple):
    """The confirmed need at the instant ``at_s``, in replicas."""

    at_s: float
    replicas: float


@dataclass(frozen=True, slots=True)
class TierState:
    """The state that the policy keeps of a tier. Instants are those of the snapshots; None: it has not happened.
    ``model`` is the one that was measured (``ReplicaSample.model``); 0: unknown."""

    points: tuple[ArrivalCounts, ...] = ()
    steadiness: Steadiness = field(default_factory=Steadiness)
    budget: ErrorBudget = field(default_factory=ErrorBudget)
    model: int = 0
    measurements: ReplicaMeasurements = field(default_factory=ReplicaMeasurements)
    slowness: float = 1.0  # how many times slower replicas are than they report, by what came out of them
    disturbed_at_s: float | None = None  # when the latencies between tokens were last not those of the flow alone
    prompt_tokens: float = 0.0  # mean of a request, as last known
    output_tokens: float = 0.0
    kv_tokens: float = 0.0
    chunk_tokens: float = 0.0
    needs: tuple[NeedPoint, ...] = ()
    slow: ForecastScaling = field(default_factory=ForecastScaling)
    raised_at_s: float | None = None
    changed_at_s: float | None = None
    idle_since_s: float | None = None

    def of_model(self, model: int) -> TierState:
        """Returns the state for replicas with ``model``: what was measured of another one is forgotten."""
        if not model or model == self.model:
            return self
        if not self.model:
            return replace(self, model=model)
        return replace(
            self, model=model, measurements=ReplicaMeasurements(), slowness=1.0, kv_tokens=0.0, chunk_tokens=0.0
        )

    def after_clock_change(self) -> TierState:
        """Returns the state after the clock jumped: measurements stay, and everything with a time is dropped."""
        slow = ForecastScaling(None, 1.0, self.slow.rate.after_gap(), self.slow.prompt_tokens, self.slow.output_tokens)
        return replace(
            self,
            points=(),
            steadiness=Steadiness(),
            needs=(),
            slow=slow,
            disturbed_at_s=None,
            raised_at_s=None,
            changed_at_s=None,
            idle_since_s=None,
        )


def needs_within(needs: Sequence[NeedPoint], window_s: float) -> tuple[NeedPoint, ...]:
    """Returns the last of ``needs``, as those of a window of ``window_s`` seconds. ``needs`` has at least one."""
    return with_need(tuple(needs[:-1]), needs[-1], window_s)


def with_need(needs: tuple[NeedPoint, ...], new: NeedPoint, window_s: float) -> tuple[NeedPoint, ...]:
    """Returns ``needs`` with ``new`` added. Points before the window are dropped except the last of them, which shows
    that the whole window is known."""
    start = sum(need.at_s <= new.at_s - window_s for need in needs)
    return (*needs[max(0, start - 1) :], new)
