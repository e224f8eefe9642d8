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
    ``config.utilisation``. The target is raised at once, and lowered to the peak need of the down window.

    Replicas that have not reported lately count as the mean of the others. With fewer fresh ones than
    ``fast.min_fresh``, or with counters that make no sense, the target is held within its bounds.
    """
    fresh = seen.ready if seen.fresh is None else seen.fresh
    sound = isfinite(seen.busy_s) and min(seen.requests, seen.busy_s, seen.target, seen.ready, fresh) >= 0
    sound = sound and fresh >= fast.min_fresh * seen.ready
    point = ArrivalCounts(at_s, arrivals=seen.requests, prompt_tokens=seen.busy_s) if sound else None
    points = remembered(state.points, point, fast.flow_window_s)
    flow = flow_of(points, fast.flow_window_s)
    if flow is None or point is None:
        why = WhyNot(Reason.NO_FRESH_DATA, {"ready": seen.ready, "fresh": fresh})
        held = min(config.max, max(config.min, seen.target))
        return replace(state, points=points), TierDecision(seen.name, held, seen.target, Reason.NO_FRESH_DATA, why, why)
    request_s = flow.prompt_tokens or state.request_s
    rate = flow.rate * (seen.ready / fresh if fresh else 1.0)
    need = rate * request_s / config.utilisation
    needs = with_need(state.needs, NeedPoint(at_s, need), fast.down_window_s)
    target, reason = _target(config, fast, replace(state, needs=needs), seen, need)
    changed_at_s = at_s if target != seen.target else state.changed_at_s
    numbers = {"requests_per_s": rate, "request_s": request_s, "utilisation": config.utilisation}
    numbers |= {"need": need, "ready": seen.ready, "fresh": fresh, "starting": max(0, seen.target - seen.ready)}
    decision = _explained(config, seen, target, reason, max(each.replicas for each in needs), numbers)
    return FollowerState(points, request_s, needs, changed_at_s), decision


def _explained(
    config: FollowerConfig, seen: FollowerSnapshot, target: int, reason: Reason, peak: float, numbers: dict[str, float]
) -> TierDecision:
    """Returns the decision for ``target``. ``peak`` is the highest need of the down window."""
    need = {"need": numbers["need"]}
    more = WhyNot(Reason.FOLLOWS, need)
    if target == config.max:
        more = WhyNot(Reason.MAXIMUM, {"most": config.max, **need})
    fewer = WhyNot(reason, {**need, "peak": peak})
    if target == config.min:
        fewer = WhyNot(Reason.MINIMUM, {"least": config.min, **need})
    elif reason is Reason.STEADY:
        fewer = WhyNot(Reason.FOLLOWS, need)
    return TierDecision(seen.name, target, seen.target, reason, more, fewer, numbers=numbers)


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
