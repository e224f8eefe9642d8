"""``decide_tier``: decides the replicas of one tier by itself, before tiers share the GPUs of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cluster.autoscaling.arrival_rate import ArrivalCounts, dispersion_of, fell_below, flow_of, point_of, remembered
from cluster.autoscaling.config import AutoscalingConfig, FastLoopConfig, SloConfig, TierScalingConfig
from cluster.autoscaling.decision import Need, Reason, TierDecision, WhyNot
from cluster.autoscaling.error_budget import ErrorBudget, observed_budget, uncounted_late
from cluster.autoscaling.predictions import step_s, ttft_s
from cluster.autoscaling.reactive_scaling import Proposal, proposed
from cluster.autoscaling.replica_bounds import Bounds, bounds_of
from cluster.autoscaling.signal_agreement import Confirmed, confirmed
from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.signals.backlog import backlog, backlog_s
from cluster.autoscaling.signals.batch_deadline import batch_deadline
from cluster.autoscaling.signals.kv_demand import kv_demand
from cluster.autoscaling.signals.observed_ttft import observed_ttft
from cluster.autoscaling.signals.refusals import refusals
from cluster.autoscaling.signals.request_flow import request_flow
from cluster.autoscaling.slowness import TRUSTED, disturbed_at, learnt_slowness, mean_itl_s, measured_slowness
from cluster.autoscaling.snapshot import LatencyReport, Snapshot, TierSnapshot
from cluster.autoscaling.staffing import staffed, whole
from cluster.autoscaling.steadiness import Steadiness
from cluster.autoscaling.tier_load import TierLoad, load_of
from cluster.autoscaling.tier_state import NeedPoint, TierState, with_need

SIGNALS = (backlog, kv_demand, observed_ttft, refusals, request_flow)
"""All signals that do not depend on a floor."""

NEWCOMER_S = 30.0
"""Seconds for which a replica is a newcomer: the usual window of latency reports."""

IDLE_REQUESTS = 1.0
"""Requests forecast within ``idle_s`` below which the forecast does not keep a tier from zero."""


@dataclass(frozen=True, slots=True)
class TierOutcome:
    """The next state of a tier and its decision. ``need`` is the fractional number of replicas that the load needs;
    ``least`` is the number of replicas that no other tier of the pool may take."""

    state: TierState
    decision: TierDecision
    need: float = 0.0
    least: int = 0


def decide_tier(
    config: AutoscalingConfig, tier: TierScalingConfig, state: TierState, snapshot: Snapshot, seen: TierSnapshot
) -> TierOutcome:
    """Returns the next state and the decision for the tier ``seen``, regardless of other tiers. ``raised_at_s`` and
    ``changed_at_s`` of the state are unchanged; the caller sets them once the final target is known."""
    zone = ZoneInfo(config.timezone)
    bounds = bounds_of(tier, seen.name, snapshot.pins, snapshot.time_s, zone)
    learnt, evidence = _observed(config, tier, state, snapshot, seen)
    load = evidence.load
    if load.ready and load.fresh < config.fast.min_fresh * load.ready:
        held = _held(seen.target, WhyNot(Reason.NO_FRESH_DATA, {"ready": load.ready, "fresh": load.fresh}))
        return _keeping(_bounded(learnt, evidence, seen, bounds, held, (), 0), seen, bounds)
    floor, is_outdated = _floor(config, learnt, evidence), _is_outdated(config, learnt)
    needs = _needs(evidence, max(floor, bounds.least))
    need = confirmed(needs, load.ready, evidence.at_work_replicas)
    history = with_need(learnt.needs, NeedPoint(snapshot.at_s, need.replicas), config.fast.down_window_s)
    learnt = replace(
        _with_forecast(config, learnt, evidence, needs, need, local_s(snapshot, zone) - snapshot.at_s),
        needs=history,
        idle_since_s=_idle_since(learnt, evidence),
    )
    if seen.target == 0:
        proposal = _from_zero(evidence, need)
    elif bounds.least == 0 and _is_idle(learnt, evidence, floor):
        idle_s = snapshot.at_s - (learnt.idle_since_s or snapshot.at_s)
        why = WhyNot(Reason.IDLE, {"idle_s": idle_s, "after_s": tier.idle_s})
        proposal = Proposal(0, Reason.IDLE, why, why)
    else:
        proposal = proposed(evidence, seen.target, need, history, state.raised_at_s, state.changed_at_s)
    # The dead band holds for the forecast too, which says little more than the flow while the load is steady.
    least = whole(floor / (1 + config.fast.band))
    outcome = _bounded(
        learnt, evidence, seen, bounds, proposal, needs, min(least, seen.target) if is_outdated else least
    )
    # After a restart of the controller the flow is not known at once, and the need is too low.
    known = snapshot.at_s - history[0].at_s >= config.fast.down_window_s
    return outcome if known else _keeping(outcome, seen, bounds)


def _observed(
    config: AutoscalingConfig, tier: TierScalingConfig, state: TierState, snapshot: Snapshot, seen: TierSnapshot
) -> tuple[TierState, SignalInputs]:
    """Returns the state with what the snapshot teaches, and the evidence."""
    fast, at_s = config.fast, snapshot.at_s
    cold_start_s = seen.cold_start_s if 0 < seen.cold_start_s < float("inf") else fast.default_cold_start_s
    stuck_s = fast.stuck_factor * cold_start_s
    load = load_of(seen, at_s, stale_s=fast.stale_s, stuck_s=stuck_s, new_s=NEWCOMER_S, model=state.model)
    state = state.of_model(load.model)
    points = remembered(state.points, point_of(seen, at_s, fast.stale_s), fast.flow_window_s)
    flow = flow_of(points, fast.flow_window_s) if points and at_s - points[-1].at_s <= fast.stale_s else None
    measurements = state.measurements.with_prefill(load.prefill_tokens_per_s, config.interval_s)
    learnt = replace(
        state,
        points=points,
        steadiness=_steadiness(state, points, at_s, fast.flow_window_s),
        budget=_budget(fast, tier, state, points, seen.latencies, at_s),
        measurements=measurements.with_step(load.decode_batch, load.decode_step_s, config.interval_s),
        prompt_tokens=(flow.prompt_tokens if flow else 0.0) or state.prompt_tokens,
        output_tokens=(flow.output_tokens if flow else 0.0) or state.output_tokens,
        chunk_tokens=load.chunk_tokens or state.chunk_tokens,
        kv_tokens=load.kv_demand_tokens / load.in_flight if load.in_flight else state.kv_tokens,
    )
    if flow is not None:
        flow = replace(flow, prompt_tokens=learnt.prompt_tokens, output_tokens=learnt.output_tokens)
    model = replace(learnt.measurements.model(), chunk_tokens=learnt.chunk_tokens)
    itl_s = mean_itl_s(seen.latencies, at_s, fast.stale_s, fast.min_latencies)
    disturbed_at_s = disturbed_at(state.disturbed_at_s, load, at_s)
    measured = measured_slowness(model, flow, load, itl_s, at_s - disturbed_at_s)
    slowness = learnt_slowness(learnt.slowness, measured, config.interval_s)
    learnt = replace(learnt, slowness=slowness, disturbed_at_s=disturbed_at_s)
    fall = learnt.steadiness.fall(at_s)
    if fall is not None and flow is not None and flow.rate == flow.mean_rate:
        flow = replace(flow, rate=fall.rate)  # the mean is of half a minute ago
    else:
        fall = None  # a surge shows in its last seconds first
    evidence = SignalInputs(
        at_s=at_s,
        load=load,
        flow=flow,
        steady=learnt.steadiness.is_steady(at_s),
        model=replace(
            model.slower(slowness) if slowness > TRUSTED else model,
            sequences=_sequences(load, learnt, fast.kv_margin),
        ),
        tier=tier,
        slo=tier.strictest or SloConfig(),
        fast=fast,
        cold_start_s=cold_start_s,
        waiting_room=seen.waiting_room,
        latencies=seen.latencies,
        batch_work=seen.batch_work,
        falling=learnt.steadiness.is_falling(at_s),
        fall=fall,
        budget=learnt.budget,
    )
    return learnt, evidence


def _steadiness(state: TierState, points: tuple[ArrivalCounts, ...], at_s: float, window_s: float) -> Steadiness:
    """Returns what is known of the flow's steadiness after ``points``, of which the last one is of now if the counters
    are known."""
    if not points or points[-1].at_s != at_s:
        return state.steadiness
    return state.steadiness.observe(at_s, points[-1].arrivals, dispersion_of(points, window_s))


def _budget(
    fast: FastLoopConfig,
    tier: TierScalingConfig,
    state: TierState,
    points: tuple[ArrivalCounts, ...],
    latencies: Sequence[LatencyReport],
    at_s: float,
) -> ErrorBudget:
    """Returns the error budget after ``points`` and the latencies of now."""
    late = uncounted_late(latencies, tier, state.prompt_tokens, at_s, fast.stale_s)
    before, now = (each[-1] if each else None for each in (state.points, points))
    return observed_budget(state.budget, before, now, late, fast.budget_window_s)


def _sequences(load: TierLoad, learnt: TierState, margin: float) -> float:
    """Returns the mean requests that a replica's KV cache holds within the margin; 0 if unknown."""
    return margin * load.kv_capacity_tokens / learnt.kv_tokens if learnt.kv_tokens else 0.0


def _needs(evidence: SignalInputs, floor: float) -> tuple[Need, ...]:
    """Returns what each signal asks for, highest first."""
    found = [need for signal in SIGNALS if (need := signal(evidence)) is not None]
    if (batch := batch_deadline(evidence, floor)) is not None:
        found.append(batch)
    return tuple(sorted(found, key=lambda need: -need.replicas))


def _floor(config: AutoscalingConfig, state: TierState, evidence: SignalInputs) -> float:
    """Returns the replicas, as a fraction, for the flow that is forecast. 0 if there is no forecast or hardly a
    request in it."""
    ahead = state.slow.ahead
    if ahead is None or not evidence.model.known or ahead.rate * evidence.tier.idle_s < IDLE_REQUESTS:
        return 0.0
    headroom = evidence.forecast_headroom(config.forecast.unspent_headroom)
    return staffed(evidence.model.replicas(ahead, evidence.itl_limit_s), headroom, ahead.rate * evidence.slo.ttft_p99_s)


def _is_outdated(config: AutoscalingConfig, state: TierState) -> bool:
    """Whether the forecast's last interval was before, or around, a drop of the arrivals: fewer came since than it
    takes for the present."""
    fast = config.fast
    return fell_below(state.points, state.slow.present, config.forecast.interval_s, fast.flow_window_s)


def _with_forecast(
    config: AutoscalingConfig,
    state: TierState,
    evidence: SignalInputs,
    needs: Sequence[Need],
    need: Confirmed,
    ahead_s: float,
) -> TierState:
    """Returns the state with the forecasts after this tick. Local time is ``ahead_s`` ahead of the policy's clock."""
    point: ArrivalCounts | None = state.points[-1] if state.points and state.points[-1].at_s == evidence.at_s else None
    asked = next((each.replicas for each in needs if each.reason is Reason.FLOW), 0.0)
    believed = min(1.0, need.replicas / asked) if asked else 1.0
    slow = state.slow.observe(point, believed, evidence.cold_start_s, ahead_s, config.forecast, evidence.steady)
    return replace(state, slow=slow)


def _idle_since(state: TierState, evidence: SignalInputs) -> float | None:
    load, flow = evidence.load, evidence.flow
    busy = load.in_flight or load.batch_in_flight or evidence.waiting_room.requests or evidence.batch_work
    if busy or flow is None or flow.mean_rate > 0:
        return None
    return evidence.at_s if state.idle_since_s is None else state.idle_since_s


def _is_idle(state: TierState, evidence: SignalInputs, floor: float) -> bool:
    """Whether the tier may go to zero: it was idle for ``idle_s``, and no requests are forecast."""
    since_s = state.idle_since_s
    idle = since_s is not None and evidence.at_s - since_s >= evidence.tier.idle_s
    return idle and floor == 0 and evidence.load.fresh == evidence.load.ready


def _from_zero(evidence: SignalInputs, need: Confirmed) -> Proposal:
    """Returns the proposal for a tier at zero: replicas at once if a request has come."""
    room, flow = evidence.waiting_room, evidence.flow
    numbers = {"waiting": float(room.requests), "cold_start_s": evidence.cold_start_s}
    if not room.requests and not evidence.batch_work and not (flow and flow.rate):
        return Proposal(0, Reason.IDLE, WhyNot(Reason.IDLE, numbers), WhyNot(Reason.MINIMUM, {"min": 0}))
    # A whole one, however short the prompt: a part of it would get nothing of a pool whose GPUs are in use.
    needed = max(1.0, need.replicas)
    why = WhyNot(Reason.WAITING_ROOM, numbers)
    return Proposal(whole(needed), Reason.WAITING_ROOM, WhyNot(Reason.STEADY, {"need": needed}), why, needed)


def _held(target: int, why: WhyNot) -> Proposal:
    """Returns the proposal of a tier whose need is unknown: it counts as the present target, also against other tiers
    of its pool."""
    return Proposal(target, why.reason, why, why, latest=float(target), peak=float(target))


def _keeping(outcome: TierOutcome, seen: TierSnapshot, bounds: Bounds) -> TierOutcome:
    """Returns the outcome of a tier that is not known to need fewer replicas than it has: no other tier of its pool
    takes their GPUs."""
    return replace(outcome, least=min(bounds.most, max(bounds.least, seen.target)))


def _bounded(
    state: TierState,
    evidence: SignalInputs,
    seen: TierSnapshot,
    bounds: Bounds,
    proposal: Proposal,
    needs: tuple[Need, ...],
    floor: int,
) -> TierOutcome:
    """Returns the outcome with the target within floor, minimum and maximum, and the reason of the one that counts."""
    least, because = bounds.least, bounds.because
    if floor > least and bounds.pin is None and seen.target > 0:
        least, because = floor, Reason.FORECAST_FLOOR
    least = min(least, bounds.most)
    target, reason = proposal.target, proposal.reason
    more, fewer = proposal.why_not_more, proposal.why_not_fewer
    final = min(bounds.most, max(least, target))
    if final == least:
        fewer = WhyNot(because, {"least": least, "need": proposal.latest})
        reason = because if target < least or bounds.pin else reason
    if final == bounds.most:
        top = Reason.PINNED if bounds.pin else Reason.MAXIMUM
        more = WhyNot(top, {"most": bounds.most, "need": proposal.latest})
        reason = top if target > bounds.most or bounds.pin else reason
    decision = TierDecision(
        seen.name,
        final,
        seen.target,
        reason,
        more,
        fewer,
        needs,
        numbers_of(state, evidence, proposal, floor),
        evidence.tier.warm if final else 0,
    )
    need = max(proposal.latest, proposal.peak if final <= seen.target else 0.0, float(floor))
    return TierOutcome(state, decision, need, min(bounds.least, bounds.most))


def numbers_of(state: TierState, evidence: SignalInputs, proposal: Proposal, floor: int) -> dict[str, float]:
    """Returns the numbers behind a decision, by name. Unknown numbers are left out."""
    load, flow, model = evidence.load, evidence.flow, evidence.model
    numbers: dict[str, float] = {
        "ready": load.ready,
        "fresh": load.fresh,
        "starting": load.starting,
        "stuck": load.stuck,
        "warm": load.warm,
        "need": proposal.latest,
        "peak": proposal.peak,
        "forecast_floor": floor,
        "queued_prompt_tokens": evidence.queued_prompt_tokens,
        "in_flight": evidence.in_flight,
        "waiting_room": evidence.waiting_room.requests,
        "cold_start_s": evidence.cold_start_s,
        "slo_ttft_s": evidence.slo.ttft_p99_s,
        "ttft_limit_s": evidence.ttft_limit_s,
        "slo_itl_s": evidence.slo.itl_p99_s,
    }
    if load.draining:  # Serve does not tell: of replicas that drain it names none
        numbers["draining"] = load.draining
    if model.prefill_tokens_per_s and load.ready:
        numbers["prefill_tokens_per_s"] = model.prefill_tokens_per_s
        numbers["backlog_s"] = backlog_s(evidence, load.ready)
        numbers["predicted_ttft_s"] = ttft_s(evidence, load.ready)
    if model.step_s and load.ready:
        numbers["predicted_itl_s"] = step_s(evidence, load.ready)
    if flow is not None:
        numbers.update(requests_per_s=flow.rate, prompt_tokens=flow.prompt_tokens, output_tokens=flow.output_tokens)
        numbers.update(headroom=evidence.headroom, steady=float(evidence.steady))
        numbers.update(burn=state.budget.burn, budget_known=state.budget.known)
        if evidence.fall is not None:
            numbers["falling"] = 1.0
    if state.slowness > TRUSTED:
        numbers["slowness"] = state.slowness
    if state.slow.ahead is not None:
        numbers["forecast_requests_per_s"] = state.slow.ahead.rate
    return numbers


def local_s(snapshot: Snapshot, zone: ZoneInfo) -> float:
    """Returns the local time in ``zone``, as seconds since the local beginning of 1970."""
    offset = datetime.fromtimestamp(snapshot.time_s, UTC).astimezone(zone).utcoffset()
    return snapshot.time_s + (offset.total_seconds() if offset else 0.0)
