"""``ApplicationScaler``: decides for all tiers of an application together, as Serve asks for one at a time.

Serve asks for each deployment's target ten times a second. The scaler decides once per control interval. It lives in
Serve's controller; after that has been restarted, it goes on from the replicas that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from cluster.autoscaling.config import AutoscalingConfig
from cluster.autoscaling.decision import Decisions
from cluster.autoscaling.follower_collector import FollowerMemory, collect_follower
from cluster.autoscaling.forecast_memory import ForecastMemory
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import FollowerSnapshot, Pin, Snapshot, TierSnapshot, WaitingRoom
from cluster.autoscaling.snapshot_collector import TierMemory, TierView, collect
from cluster.autoscaling.tier_state import TierState
from cluster.autoscaling.warm_pool import serving_target, warm_replicas

LOST_S = 5.0
"""Seconds after which a tier is left out that Serve does not ask for any more, and for which others are awaited at the
start."""

ReadView = Callable[[], TierView | None]
"""Returns a tier as Serve knows it now; None if it cannot be read, whereupon its target stays."""


@dataclass(frozen=True, slots=True)
class _Asked:
    at_s: float
    target: int
    read: ReadView


class ApplicationScaler:
    """The autoscaler of one application. ``gpus`` are those of a replica, by tier. Not thread-safe.

    ``on_decisions`` is called with each new decision, and must neither block nor raise. ``pins`` returns the operators'
    pins, and ``rooms`` the waiting rooms of the tiers without replicas, by tier. ``on_warm`` is called with the ids of
    the warm replicas, by tier, at each new decision, and is like ``on_decisions``.
    """

    def __init__(
        self,
        config: AutoscalingConfig,
        gpus: dict[str, float],
        on_decisions: Callable[[Decisions], None] = lambda decisions: None,
        pins: Callable[[], tuple[Pin, ...]] = tuple,
        rooms: Callable[[], Mapping[str, WaitingRoom]] = dict,
        on_warm: Callable[[Mapping[str, frozenset[str]]], None] = lambda warm: None,
    ) -> None:
        self._on_warm = on_warm
        self._rooms = rooms
        self._config = config
        self._gpus = gpus
        self._on_decisions = on_decisions
        self._pins = pins
        self._asked: dict[str, _Asked] = {}
        self._memories: dict[str, TierMemory] = {}
        self._followers: dict[str, FollowerMemory] = {}
        self._state = AutoscalerState()
        self._memory: ForecastMemory | None = None
        self._remembers = False  # whether the state has what was stored
        self._began_s: float | None = None

    def remember_in(self, memory: ForecastMemory) -> None:
        """Keeps the forecasts in ``memory``, which outlives this process. The first decision waits for what is stored
        there. If it is read late, a later decision uses it."""
        self._memory = memory

    def configure(self, config: AutoscalingConfig, gpus: dict[str, float]) -> None:
        """Replaces the settings. ``gpus`` has the number of GPUs of one replica of each tier. The state of the policy,
        such as measured speeds, stays."""
        self._config, self._gpus = config, gpus

    def target(self, tier: str, target: int, read: ReadView, at_s: float, unix_s: float | None = None) -> int:
        """Returns the number of replicas that ``tier``, or the follower of that name, should have at the instant
        ``at_s`` of a clock that only goes forward. ``unix_s`` is the time of day; None: ``at_s``.

        ``target`` is the present number. Both include the warm pool. ``read`` returns the tier as Serve knows it. It is
        called for each decision within LOST_S seconds, until the next call replaces it.
        """
        self._asked[tier] = _Asked(at_s, target, read)
        self._began_s = at_s if self._began_s is None else self._began_s
        if self._due(at_s):
            self._decide(at_s, unix_s)
        decisions = self._state.decisions
        decision = None if decisions is None else decisions.tiers.get(tier) or decisions.followers.get(tier)
        return target if decision is None else decision.target + decision.warm

    def _due(self, at_s: float) -> bool:
        """Returns whether it is time for a decision. The first one waits until all tiers are known, since they share
        GPUs, and what was stored, such as pins and forecasts. It waits for LOST_S seconds at most."""
        last = self._state.decisions
        if last is not None:
            return not 0 <= at_s - last.at_s < self._config.interval_s
        complete = (self._config.tiers.keys() | self._config.followers.keys()) <= self._asked.keys()
        known = self._memory is None or self._memory.is_read()
        return (complete and known) or not 0 <= at_s - (self._began_s or at_s) < LOST_S

    def _decide(self, at_s: float, unix_s: float | None) -> None:
        self._asked = {name: asked for name, asked in self._asked.items() if abs(at_s - asked.at_s) < LOST_S}
        read = {name: asked.read() for name, asked in self._asked.items()}
        views = [view for view in read.values() if view is not None]
        left = self._pool_gpus([name for name, view in read.items() if view is None])
        rooms, following = self._rooms(), self._config.followers
        tiers = [self._tier(view, rooms, at_s) for view in views if view.name not in following]
        followers = [self._follower(view, at_s) for view in views if view.name in following]
        self._remember()
        before = self._state
        seen = Snapshot(at_s, tuple(tiers), tuple(followers), pins=self._pins(), pool_gpus=left, unix_s=unix_s)
        self._state, decisions = decide(self._config, before, seen)
        if decisions is not before.decisions:
            self._on_decisions(decisions)
            self._on_warm(warm_replicas(decisions, tiers))
            if self._memory is not None and self._remembers:  # else what is stored would be lost
                self._memory.remember({name: tier.slow for name, tier in self._state.tiers.items()})

    def _remember(self) -> None:
        """Takes up the forecasts of the controller before this one, once they are read: a season is worth more than the
        level that has been learnt meanwhile."""
        if self._remembers or self._memory is None or not self._memory.is_read():
            return
        tiers = dict(self._state.tiers)
        for name, stored in self._memory.forecasts().items():
            if name in self._config.tiers:
                tiers[name] = replace(tiers.get(name, TierState()), slow=stored)
        self._state, self._remembers = replace(self._state, tiers=tiers), True

    def _pool_gpus(self, unread: Iterable[str]) -> dict[str, float]:
        """Returns the GPUs of the pools to which tiers belong that cannot be read, without those of these tiers, which
        keep their targets."""
        left: dict[str, float] = {}
        for name in unread:
            tier = self._config.tiers.get(name)
            if tier is not None and tier.pool is not None:
                free = left.get(tier.pool, self._config.pools[tier.pool])
                left[tier.pool] = max(0.0, free - self._asked[name].target * self._gpus.get(name, 0.0))
        return left

    def _tier(self, view: TierView, rooms: Mapping[str, WaitingRoom], at_s: float) -> TierSnapshot:
        warm = self._warm(view)
        target = serving_target(view.target, warm)
        view = replace(view, target=target, warm=warm, room=rooms.get(view.name, WaitingRoom()))
        memory = self._memories.get(view.name, TierMemory())
        self._memories[view.name], tier = collect(memory, view, at_s, self._gpus.get(view.name, 0.0))
        return tier

    def _warm(self, view: TierView) -> int:
        """Returns the replicas of the warm pool that ``view.target`` includes: those of the last decision. Without one,
        after a restart of the controller, those of the settings, as far as they are beyond the minimum, which is what
        Serve starts with."""
        decision = None if self._state.decisions is None else self._state.decisions.tiers.get(view.name)
        if decision is not None:
            return decision.warm
        settings = self._config.tiers.get(view.name)
        return 0 if settings is None else min(settings.warm, max(0, view.target - settings.min))

    def _follower(self, view: TierView, at_s: float) -> FollowerSnapshot:
        memory = self._followers.get(view.name, FollowerMemory())
        self._followers[view.name], follower = collect_follower(memory, view, at_s, self._config.fast.stale_s)
        return follower


class ApplicationScalers:
    """The scalers of this process, by application.

    The registry is class state because Serve creates the policy of each deployment itself, from an import path. It is
    not in the policy's module, which Serve pickles by value.
    """

    _scalers: ClassVar[dict[str, ApplicationScaler]] = {}

    @classmethod
    def of(cls, application: str, make: Callable[[], ApplicationScaler]) -> ApplicationScaler:
        """Returns the scaler of an application, made by ``make`` at the first call."""
        if application not in cls._scalers:
            cls._scalers[application] = make()
        return cls._scalers[application]
