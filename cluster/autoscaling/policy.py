"""``decide``: the autoscaling policy. A snapshot in, a target for each tier with its reason out. Pure.

It never blocks, never raises on bad input, and returns its last decision when it is called again within a control
interval. Serve's application-level policy, tests on a virtual clock and the simulator call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

from cluster.autoscaling.config import AutoscalingConfig
from cluster.autoscaling.decision import Decisions, Reason, TierDecision, WhyNot
from cluster.autoscaling.dependent_deployment import FollowerState, follow
from cluster.autoscaling.gpu_budget import Claim, share
from cluster.autoscaling.snapshot import FollowerSnapshot, Snapshot, TierSnapshot
from cluster.autoscaling.tier_policy import TierOutcome, decide_tier
from cluster.autoscaling.tier_state import TierState

BAD_INPUT = (ArithmeticError, ValueError, TypeError, LookupError, AttributeError)
"""What a snapshot with wrong types or numbers can raise. The tier that has them is held, others are not."""


@dataclass(frozen=True, slots=True)
class AutoscalerState:
    """The state that the policy keeps from one decision to the next. ``AutoscalerState()`` is the state at the start.

    It has no targets: the policy uses those in the snapshot. So a policy that is restarted continues from the present
    replicas.
    """

    decisions: Decisions | None = None
    tiers: Mapping[str, TierState] = field(default_factory=dict)
    followers: Mapping[str, FollowerState] = field(default_factory=dict)


def decide(config: AutoscalingConfig, state: AutoscalerState, snapshot: Snapshot) -> tuple[AutoscalerState, Decisions]:
    """Returns the next state, and the target of each tier in ``snapshot`` with its reason.

    The state is new each time, and ``state`` is unchanged. Within ``config.interval_s`` of the last decision, that
    decision and ``state`` are returned. If the clock went back, all targets are held for one interval, and everything
    with a time is dropped from the state. If a time of ``snapshot`` is no finite number, all targets are held and
    ``state`` is returned.
    """
    if not _is_number(snapshot.at_s) or not _is_number(snapshot.time_s):
        return state, _all_held(state, snapshot, Reason.BAD_INPUT)
    if state.decisions is not None:
        elapsed_s = snapshot.at_s - state.decisions.at_s
        if 0 <= elapsed_s < config.interval_s:
            return state, state.decisions
        if elapsed_s < 0:
            held = _all_held(state, snapshot, Reason.CLOCK)
            tiers = {name: tier.after_clock_change() for name, tier in state.tiers.items()}
            return AutoscalerState(held, tiers), held
    outcomes = {tier.name: _outcome(config, state, snapshot, tier) for tier in snapshot.tiers}
    outcomes = _within_budgets(config, snapshot, outcomes)
    followers = {each.name: _followed(config, state, snapshot, each) for each in snapshot.followers}
    decisions = Decisions(
        snapshot.at_s,
        {name: outcome.decision for name, outcome in outcomes.items()},
        {name: decision for name, (_, decision) in followers.items()},
        snapshot.unix_s,
    )
    # A tier that is missing from one snapshot, since it could not be read, is the same one afterwards.
    kept = {name: tier for name, tier in state.tiers.items() if name in config.tiers}
    tiers = {**kept, **{name: _changed(outcome, snapshot.at_s) for name, outcome in outcomes.items()}}
    return AutoscalerState(decisions, tiers, {name: kept for name, (kept, _) in followers.items()}), decisions


def _outcome(config: AutoscalingConfig, state: AutoscalerState, snapshot: Snapshot, tier: TierSnapshot) -> TierOutcome:
    """Returns the outcome of a tier by itself. One that is not configured, or has bad input, is held."""
    remembered = state.tiers.get(tier.name, TierState())
    settings = config.tiers.get(tier.name)
    if settings is None:
        return TierOutcome(remembered, _held(state, tier, Reason.NOT_CONFIGURED))
    try:
        return decide_tier(config, settings, remembered, snapshot, tier)
    except BAD_INPUT as error:
        held = replace(_held(state, tier, Reason.BAD_INPUT), detail=f"{type(error).__name__}: {error}")
        return TierOutcome(remembered, held, need=_target(tier), least=max(settings.min, _target(tier)))


def _followed(
    config: AutoscalingConfig, state: AutoscalerState, snapshot: Snapshot, seen: FollowerSnapshot
) -> tuple[FollowerState, TierDecision]:
    remembered = state.followers.get(seen.name, FollowerState())
    settings = config.followers.get(seen.name)
    if settings is None:
        return remembered, _held(state, seen, Reason.NOT_CONFIGURED)
    try:
        return follow(settings, config.fast, remembered, seen, snapshot.at_s)
    except BAD_INPUT as error:
        return remembered, replace(_held(state, seen, Reason.BAD_INPUT), detail=f"{type(error).__name__}: {error}")


def _within_budgets(
    config: AutoscalingConfig, snapshot: Snapshot, outcomes: Mapping[str, TierOutcome]
) -> dict[str, TierOutcome]:
    """Returns the outcomes with the targets that the GPUs of their pools allow."""
    result = dict(outcomes)
    gpus = {tier.name: tier.gpus_per_replica for tier in snapshot.tiers}
    for pool, configured in config.pools.items():
        available = _number(snapshot.pool_gpus.get(pool, configured), configured)
        members = [name for name in outcomes if name in config.tiers and config.tiers[name].pool == pool]
        claims = [
            Claim(
                tier=name,
                wanted=outcomes[name].decision.target,
                least=_least(config, outcomes[name], snapshot.at_s),
                now=outcomes[name].decision.previous,
                need=outcomes[name].need,
                weight=config.tiers[name].weight,
                gpus=_number(gpus[name], 0.0),
            )
            for name in members
        ]
        for name, granted in share(claims, available).items():
            if granted < outcomes[name].decision.target:
                result[name] = _cut(outcomes[name], granted, available)
        result |= _with_warm_pools({name: result[name] for name in members}, gpus, available)
    return result


def _least(config: AutoscalingConfig, outcome: TierOutcome, at_s: float) -> int:
    """Returns the number of replicas that no other tier of the pool may take: all that it has for ``down_period_s``
    after a change, as for a lowering by its own load, and a first one. Else tiers whose needs waver would take replicas
    from each other with each decision, and one that is moved serves neither for a cold start."""
    changed_at_s, decision = outcome.state.changed_at_s, outcome.decision
    settled = changed_at_s is None or at_s - changed_at_s >= config.fast.down_period_s
    first = int(decision.previous == 0 < decision.target)  # requests wait for it, and not for long
    return max(outcome.least, first, 0 if settled else decision.previous)


def _with_warm_pools(
    outcomes: Mapping[str, TierOutcome], gpus: Mapping[str, float], available: float
) -> dict[str, TierOutcome]:
    """Returns the outcomes of a pool's tiers with the warm replicas for which their targets leave GPUs."""
    left = available - sum(outcome.decision.target * _number(gpus[name], 0.0) for name, outcome in outcomes.items())
    result = {}
    for name, outcome in outcomes.items():
        each = _number(gpus[name], 0.0)
        warm = min(outcome.decision.warm, max(0, int((left + 1e-9) / each))) if each else outcome.decision.warm
        left -= warm * each
        result[name] = replace(outcome, decision=replace(outcome.decision, warm=warm))
    return result


def _cut(outcome: TierOutcome, granted: int, gpus: float) -> TierOutcome:
    """Returns the outcome with the target ``granted``, since its pool has no more than ``gpus`` GPUs."""
    decision = outcome.decision
    why = WhyNot(Reason.GPU_BUDGET, {"wanted": decision.target, "granted": granted, "pool_gpus": gpus})
    return replace(outcome, decision=replace(decision, target=granted, reason=Reason.GPU_BUDGET, why_not_more=why))


def _changed(outcome: TierOutcome, at_s: float) -> TierState:
    """Returns the state of a tier with the instant of the change, if its target changes."""
    target, previous = outcome.decision.target, outcome.decision.previous
    if target == previous:
        return outcome.state
    raised_at_s = at_s if target > previous else outcome.state.raised_at_s
    return replace(outcome.state, raised_at_s=raised_at_s, changed_at_s=at_s)


def _all_held(state: AutoscalerState, snapshot: Snapshot, reason: Reason) -> Decisions:
    tiers = {tier.name: _held(state, tier, reason) for tier in snapshot.tiers}
    followers = {each.name: _held(state, each, reason) for each in snapshot.followers}
    return Decisions(snapshot.at_s, tiers, followers, snapshot.unix_s)


def _held(state: AutoscalerState, seen: TierSnapshot | FollowerSnapshot, reason: Reason) -> TierDecision:
    """Returns the decision that the target stays, and with it the warm pool of the last decision."""
    why = WhyNot(reason)
    last = None if state.decisions is None else state.decisions.tiers.get(seen.name)
    warm = 0 if last is None else last.warm
    return TierDecision(seen.name, _target(seen), _target(seen), reason, why, why, warm=warm)


def _target(seen: TierSnapshot | FollowerSnapshot) -> int:
    return int(_number(seen.target, 0))


def _number(value: float, default: float) -> float:
    return value if _is_number(value) else default


def _is_number(value: object) -> bool:
    """Returns whether a value of a collector, which may be of any type, is a finite number from 0 on."""
    return isinstance(value, int | float) and isfinite(value) and value >= 0
