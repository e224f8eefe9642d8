"""``proposed``: proposes the target of a tier from its recent needs, with the rules against flapping."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from cluster.autoscaling.decision import Reason, WhyNot
from cluster.autoscaling.scale_down_check import Objection, fewest
from cluster.autoscaling.signal_agreement import Confirmed
from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.staffing import EPSILON, whole
from cluster.autoscaling.tier_state import NeedPoint, needs_within

MAX_MADE_UP = 0.25
"""Of the need: the most replicas that are ordered to make up for stuck ones, and at least one."""

LEAST_NEEDS = 2
"""Decisions in a row in which the need has to exceed the target before a raise."""

SETTLING = 2.0
"""Down windows after a raise of the target, in which headroom alone has to ask for a whole one before another one."""


class Proposal(NamedTuple):
    """The target by load alone, before bounds and GPU budgets. ``latest`` is the present need, and ``peak`` the highest
    need in the down window, both in replicas."""

    target: int
    reason: Reason
    why_not_more: WhyNot
    why_not_fewer: WhyNot
    latest: float = 0.0
    peak: float = 0.0


def proposed(
    evidence: SignalInputs,
    target: int,
    need: Confirmed,
    needs: Sequence[NeedPoint],
    raised_at_s: float | None,
    changed_at_s: float | None,
) -> Proposal:
    """Returns the target by the needs so far.

    ``needs`` ends with the present need. ``target`` is the present target, above 0. ``raised_at_s`` and
    ``changed_at_s`` are the instants of its last raise and last change; None: not yet.
    """
    fast, at_s = evidence.fast, evidence.at_s
    needs = needs_within(needs, evidence.down_window_s)
    latest = needs[-1].replicas
    made_up = min(evidence.load.stuck, max(1, ceil(MAX_MADE_UP * latest))) if evidence.load.ready else 0
    is_settling = not made_up and _is_settling(evidence, target, need, raised_at_s, changed_at_s)
    window_s = fast.down_window_s if is_settling else 0.0
    before = max(LEAST_NEEDS, sum(each.at_s > at_s - window_s for each in needs))
    lasting = min(each.replicas for each in needs[-before:]) if len(needs) > 1 else 0.0
    peak = max(each.replicas for each in needs)
    wanted = whole(latest) + made_up
    lowest = max(1, whole(peak * (1 + evidence.down_band))) + made_up
    above = wanted > target and lasting > (target - made_up) * (1 + fast.band)
    if above and not _within(at_s, raised_at_s, fast.up_period_s):
        reason = need.top.reason if need.top else Reason.STEADY
        if made_up and whole(latest) <= target:
            reason = Reason.STUCK_STARTING
        return Proposal(
            wanted, reason, _why_not_more(evidence, wanted, need, latest), _needed(need, latest, peak), latest, peak
        )
    why_more = _why_not_more(evidence, target, need, latest)
    if above:
        since = at_s - (raised_at_s or at_s)
        why_more = WhyNot(Reason.UP_RATE, {"since_s": since, "period_s": fast.up_period_s, "need": latest})
        return Proposal(target, Reason.UP_RATE, why_more, _needed(need, latest, peak), latest, peak)
    if is_settling and latest > target * (1 + fast.band):
        numbers = {"need": latest, "busy": evidence.flow_replicas or 0.0, "window_s": window_s}
        why_more = WhyNot(Reason.SETTLING, numbers)
        return Proposal(target, Reason.SETTLING, why_more, _needed(need, latest, peak), latest, peak)
    if lowest >= target:
        why_fewer = _why_not_lower(target, need, latest, peak, evidence.down_band)
        reason = Reason.DEAD_BAND if latest > target or whole(latest) < target else Reason.STEADY
        return Proposal(target, reason, why_more, why_fewer, latest, peak)
    return _lowered(evidence, target, lowest, needs, changed_at_s, why_more, latest, peak)


def _is_settling(
    evidence: SignalInputs, target: int, need: Confirmed, raised_at_s: float | None, changed_at_s: float | None
) -> bool:
    """Whether the target has changed lately and headroom alone could ask for more: the flow keeps no more than all
    replicas busy, no other signal asks for more than there are, and first tokens come in time."""
    fast, mean = evidence.fast, evidence.flow_replicas
    if mean is None or max(mean, need.besides) > target or need.is_late:
        return False
    return _within(evidence.at_s, changed_at_s, fast.down_window_s) or _within(
        evidence.at_s, raised_at_s, SETTLING * fast.down_window_s
    )


def _lowered(
    evidence: SignalInputs,
    target: int,
    lowest: int,
    needs: Sequence[NeedPoint],
    changed_at_s: float | None,
    why_more: WhyNot,
    latest: float,
    peak: float,
) -> Proposal:
    """Returns the proposal where the needs would allow ``lowest``, which is below ``target``."""
    at_s = evidence.at_s

    def held(why: WhyNot) -> Proposal:
        return Proposal(target, why.reason, why_more, why, latest, peak)

    known_s = at_s - needs[0].at_s
    if known_s < evidence.down_window_s:
        numbers = {"known_s": known_s, "window_s": evidence.down_window_s, "peak": peak}
        return held(WhyNot(Reason.STABILISING, numbers))
    if _within(at_s, changed_at_s, evidence.down_period_s):
        since = at_s - (changed_at_s or at_s)
        return held(WhyNot(Reason.DOWN_RATE, {"since_s": since, "period_s": evidence.down_period_s}))
    if not evidence.load.fresh:
        return held(WhyNot(Reason.NO_FRESH_DATA, {"ready": evidence.load.ready, "fresh": 0}))
    fewer, against = fewest(evidence, lowest, target)
    if fewer >= target:
        return held(_objected(against))
    rest = (
        _objected(against)
        if against
        else WhyNot(Reason.STABILISING, {"peak": peak, "window_s": evidence.down_window_s})
    )
    return Proposal(fewer, Reason.LOW_LOAD, why_more, rest, latest, peak)


def _why_not_more(evidence: SignalInputs, target: int, need: Confirmed, latest: float) -> WhyNot:
    load = evidence.load
    if need.asked > need.replicas + EPSILON and need.asked > target:
        return WhyNot(Reason.UNCONFIRMED, {"asked": need.asked, "confirmed": need.replicas})
    if load.starting and need.replicas > load.ready:
        numbers = {
            "starting": load.starting,
            "ready": load.ready,
            "need": latest,
            "cold_start_s": evidence.cold_start_s,
        }
        return WhyNot(Reason.STARTING, numbers)
    if latest > target:
        return WhyNot(Reason.DEAD_BAND, {"need": latest, "band": evidence.fast.band})
    return WhyNot(Reason.STEADY, {"need": latest})


def _needed(need: Confirmed, latest: float, peak: float) -> WhyNot:
    return WhyNot(need.top.reason if need.top else Reason.STEADY, {"need": latest, "peak": peak})


def _why_not_lower(target: int, need: Confirmed, latest: float, peak: float, band: float) -> WhyNot:
    if whole(need.replicas * (1 + band)) < target <= whole(peak):
        return WhyNot(Reason.STABILISING, {"need": need.replicas, "peak": peak})
    if whole(peak) < target:
        return WhyNot(Reason.DEAD_BAND, {"peak": peak, "band": band})
    return _needed(need, latest, peak)


def _objected(against: Objection | None) -> WhyNot:
    if against is None:
        return WhyNot(Reason.CONSOLIDATION)
    numbers = {"replicas": float(against.replicas), "value": against.value, "limit": against.limit}
    return WhyNot(Reason.CONSOLIDATION, numbers, against.reason)


def _within(at_s: float, since_s: float | None, period_s: float) -> bool:
    return since_s is not None and at_s - since_s < period_s
