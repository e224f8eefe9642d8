"""``follow``: decides the number of replicas of a follower: a deployment that requests of several tiers flow
through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, isfinite

from cluster.autoscaling.arrival_rate import ArrivalCounts, flow_of, remembered
from cluster.autoscaling.config import FastLoopConfig, FollowerConfig
from cluster.autoscaling.decision import Reason, TierDecision, WhyNot
from cluster.autoscaling.snapshot import FollowerSnapshot
from cluster.autoscaling.tier_state import NeedPoint, with_need

MAX_RAISE = 2.0
"""The target of a follower is at most this many times its ready replicas: nothing else confirms its counters."""


@dataclass(frozen=True, slots=True)
class FollowerState:
    """The state that the policy keeps of a follower: its counters, the seconds that a request takes, and its recent
    needs."""

    points: tuple[ArrivalCounts, ...] = ()
    request_s: float = 0.0
    needs: tuple[NeedPoint, ...] = ()
    changed_at_s: float | None = None


def follow(
    config: FollowerConfig, fast: FastLoopConfig, state: FollowerState, seen: FollowerSnapshot, at_s: float
) -> tuple[FollowerState, TierDecision]:
    """Returns the next state and the target. The need is requests per second x seconds of a replica per request /
    ``config.utilisation``. The target is raised at once, and lowered to the peak need of the down window."""
    sound = isfinite(seen.busy_s) and min(seen.requests, seen.busy_s, seen.target, seen.ready) >= 0
    point = ArrivalCounts(at_s, arrivals=seen.requests, prompt_tokens=seen.busy_s) if sound else None
    points = remembered(state.points, point, fast.flow_window_s)
    flow = flow_of(points, fast.flow_window_s)
    if flow is None or point is None:
        why = WhyNot(Reason.NO_FRESH_DATA)
        held = min(config.max, max(config.min, seen.target))
        return replace(state, points=points), TierDecision(seen.name, held, seen.target, Reason.NO_FRESH_DATA, why, why)
    request_s = flow.prompt_tokens or state.request_s
    need = flow.rate * request_s / config.utilisation
    needs = with_need(state.needs, NeedPoint(at_s, need), fast.down_window_s)
    target, reason = _target(config, fast, replace(state, needs=needs), seen, need)
    numbers = {"requests_per_s": flow.rate, "request_s": request_s, "need": need, "utilisation": config.utilisation}
    bound = WhyNot(Reason.MAXIMUM if target == config.max else Reason.FOLLOWS, {"max": config.max, "need": need})
    below = WhyNot(Reason.MINIMUM if target == config.min else reason, {"min": config.min, "need": need})
    decision = TierDecision(seen.name, target, seen.target, reason, bound, below, numbers=numbers)
    changed_at_s = at_s if target != seen.target else state.changed_at_s
    return FollowerState(points, request_s, needs, changed_at_s), decision


def _target(
    config: FollowerConfig, fast: FastLoopConfig, state: FollowerState, seen: FollowerSnapshot, need: float
) -> tuple[int, Reason]:
    at_s = state.needs[-1].at_s
    peak = max(each.replicas for each in state.needs)
    lowest = min(seen.target, ceil(peak * (1 + fast.band)))
    target, reason = seen.target, Reason.STEADY
    if need > seen.target * (1 + fast.band):
        most = max(seen.target, int(MAX_RAISE * max(1, seen.ready)))
        target, reason = min(ceil(need), most), Reason.FOLLOWS
    elif lowest < seen.target:
        known = at_s - state.needs[0].at_s >= fast.down_window_s
        waited = state.changed_at_s is None or at_s - state.changed_at_s >= fast.down_period_s
        target, reason = (lowest, Reason.LOW_LOAD) if known and waited else (target, Reason.STABILISING)
    bounded = min(config.max, max(config.min, target))
    if bounded != target:
        reason = Reason.MINIMUM if bounded > target else Reason.MAXIMUM
    return bounded, reason
