"""``AutoscalingConfig``: the settings of the autoscaler. Unknown keys are refused.

All durations are seconds. The defaults suit replicas that start within a minute or two.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import time
from functools import cached_property
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.api import Priority

logger = logging.getLogger(__name__)

ClassName = Literal["interactive", "standard", "batch"]
"""A scheduling class by its name in the configuration."""

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

LATE_S = 10.0
"""Seconds after which ``manta scale explain`` says that a decision is old."""

MAX_INTERVAL_SHARE = 0.5
"""Of ``fast.stale_s`` and of LATE_S, that ``interval_s`` may take: a report or a decision may be late once."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """The base of all settings here: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SloConfig(Settings):
    """The objectives of one class: 99 % of requests get their first token, and each further token, within these
    seconds."""

    ttft_p99_s: Seconds = 2.0
    ttft_s_per_1k_tokens: float = Field(0.0, ge=0, le=3_600)
    """Seconds by which the first token may come later for each 1,000 tokens of the prompt, as in ``router.admission``.
    0: the objective is that of the mean prompt."""
    itl_p99_s: Seconds = 0.1

    def ttft_s(self, prompt_tokens: float) -> float:
        """Returns the seconds within which the first token should come after a prompt of that length."""
        return self.ttft_p99_s + self.ttft_s_per_1k_tokens * prompt_tokens / 1000


class ScheduleConfig(Settings):
    """A minimum number of replicas by time of day, in the time zone of ``AutoscalingConfig.timezone``."""

    min: int = Field(ge=0)
    start: time
    end: time
    """The first instant after the schedule. At or before ``start``: on the next day."""
    days: tuple[Weekday, ...] = WEEKDAYS
    """The days on which the schedule starts."""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _check_quoted(cls, value: object) -> object:
        if isinstance(value, int | float):
            raise ValueError(f'{value} is a number, as which YAML reads a time without quotes; write "18:00"')
        return value

    @field_validator("start", "end")
    @classmethod
    def _check_local(cls, value: time) -> time:
        if value.tzinfo is not None:
            raise ValueError(f"{value} has a time zone; that of all schedules is 'timezone' of autoscaling")
        return value


class WaitingRoomConfig(Settings):
    """Requests that wait at the routers for the first replica of a tier at zero."""

    max_requests: int = Field(256, ge=0)
    """The most requests that wait at each router. Each further one is refused with 503."""
    ttl_s: Seconds = 120.0
    """Seconds that a request may wait. A request is refused at once if the cold start is longer."""


def _standard_slo() -> dict[ClassName, SloConfig]:
    return {"standard": SloConfig()}


class TierScalingConfig(Settings):
    """The scaling settings of one tier."""

    min: int = Field(1, ge=0)
    """0: the tier is scaled to zero after ``idle_s`` without a request."""
    max: int = Field(1, ge=1)
    slos: dict[ClassName, SloConfig] = Field(default_factory=_standard_slo)
    """The objectives by class. A class without an entry has the strictest of the others; batch work has none: it has
    deadlines. One given for it has no effect but a bucket of latencies, and is warned of."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """The tier's weight where tiers of a pool need more GPUs than there are."""
    pool: str | None = None
    """The pool whose GPUs the tier shares. None: it has no budget."""
    idle_s: Seconds = 600.0
    warm: int = Field(0, ge=0)
    """Replicas beside those that serve, also beyond ``max``, which have loaded the model and serve nothing. They serve
    within a second of a raise, or of the loss of a replica. None at zero replicas, or where the pool has no GPUs
    left."""
    schedules: tuple[ScheduleConfig, ...] = ()
    waiting_room: WaitingRoomConfig = WaitingRoomConfig()

    @field_validator("slos")
    @classmethod
    def _warn_of_batch(cls, value: dict[ClassName, SloConfig]) -> dict[ClassName, SloConfig]:
        if "batch" in value:  # not refused: a deployment that had it must start with this release
            logger.warning(
                "autoscaling: slos.batch scales nothing, since batch work has deadlines; to have an objective counted "
                "exactly, name it in latency_objectives_s of the tier"
            )
        return value

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        least = max([self.min, *(schedule.min for schedule in self.schedules)])
        if least > self.max:
            raise ValueError(f"max is {self.max}, which is below a minimum of {least}")
        return self

    def slo(self, priority: Priority) -> SloConfig | None:
        """Returns the objectives of a class; None if there are none."""
        named = self.slos.get(_name_of(priority))
        return named if named or priority is Priority.BATCH else self.strictest

    @cached_property
    def strictest(self) -> SloConfig | None:
        """The strictest objectives of the classes that users wait for; None if there are none."""
        slos = [slo for name, slo in self.slos.items() if name != "batch"]
        if not slos:
            return None
        return SloConfig(
            ttft_p99_s=min(slo.ttft_p99_s for slo in slos),
            ttft_s_per_1k_tokens=min(slo.ttft_s_per_1k_tokens for slo in slos),
            itl_p99_s=min(slo.itl_p99_s for slo in slos),
        )


class FollowerConfig(Settings):
    """A deployment that is scaled by the flow of requests into tiers: Router, SafetyClassifier, Embedder, ..."""

    min: int = Field(1, ge=1)
    max: int = Field(1, ge=1)
    utilisation: float = Field(0.6, gt=0, le=1)
    """The part of a replica's time that should be busy. A replica has one CPU second in a second: a router is one event
    loop, and each small model computes on one thread."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"max is {self.max}, which is below min, {self.min}")
        return self


class FastLoopConfig(Settings):
    """The loop that reacts to load."""

    stale_s: Seconds = 5.0
    """Seconds after which what a replica or router reported no longer counts."""
    min_fresh: float = Field(0.5, gt=0, le=1)
    """The part of the ready replicas that must have reported lately. Below, the target is held."""
    ttft_margin: float = Field(0.65, gt=0, le=1)
    """The part of the TTFT objective, less a prompt's own prefill, that the queue may take."""
    itl_margin: float = Field(0.9, gt=0, le=1)
    """The part of the ITL objective that the predicted mean may take."""
    kv_margin: float = Field(0.8, gt=0, le=1)
    """The part of the KV cache that running and waiting requests may need."""
    headroom: float = Field(1.05, ge=0)
    """Spare replicas for chance, in standard deviations of the count of requests within a TTFT objective."""
    steady_headroom: float = Field(0.25, ge=0)
    """As ``headroom``, while the flow has not changed for five to ten minutes by more than chance explains, or while
    ``following_window_s`` counts. At most ``headroom`` counts."""
    unspent_headroom: float = Field(0.25, ge=0, le=1)
    """The part of the headroom of a flow that is not steady that is kept while no request is late or refused. 1 % of
    them may be: that is the error budget. The more of it is being spent, the more of the headroom is kept, and all of
    it from a quarter of the budget on. 1: always all."""
    budget_window_s: Seconds = 600.0
    """A request counts less in the error budget the older it is: after this time, for about a third. So long it takes
    until most of the budget is known. What is not known counts as spent."""
    band: float = Field(0.05, ge=0, lt=1)
    """The dead band: the target is raised if the need exceeds it by this part, and lowered to the need and this part of
    it."""
    up_period_s: Seconds = 20.0
    """The least number of seconds between two raises."""
    down_window_s: Seconds = 120.0
    """The target is lowered to the highest need of this window, and only when the window is known to its beginning."""
    falling_window_s: Seconds = 60.0
    """As ``down_window_s``, while the arrivals of the last three minutes fall along a line. At most ``down_window_s``
    counts."""
    following_window_s: Seconds = 20.0
    """As ``falling_window_s``, where the arrivals have fallen along lines for almost five minutes, which they leave by
    no more than single requests explain. Such a lowering has no dead band. Its headroom is that of a steady flow and
    the line's standard error. At most ``down_window_s`` counts."""
    down_period_s: Seconds = 60.0
    """The least number of seconds between any change and a lowering: at most ``following_window_s`` while that
    counts."""
    flow_window_s: Seconds = 60.0
    """Arrivals are averaged over this window. A shorter one counts where chance cannot explain its higher rate."""
    drain_s: Seconds = 60.0
    """Seconds within which a queue should be worked off that exceeds its budget."""
    min_latencies: int = Field(50, ge=1)
    """The least number of latencies from which a P99 or a mean is taken."""
    stuck_factor: float = Field(3.0, gt=1)
    """A replica that has been starting for longer than this many cold starts is stuck: it no longer counts as one that
    will be ready soon."""
    default_cold_start_s: Seconds = 120.0
    """The cold start until one was measured."""


class ForecastConfig(Settings):
    """The slow loop: Holt-Winters (level, damped trend, daily season) on the flow of requests."""

    interval_s: Seconds = 20.0
    """The length of one observation: a fraction of a cold start, so that a rise is known while it lasts."""
    slots: int = Field(96, ge=1, le=1440)
    """Parts of the day that have a season of their own. 1: no season."""
    alpha: float = Field(0.5, gt=0, le=1)
    """Weight of an observation in the level."""
    beta: float = Field(0.5, ge=0, le=1)
    """Weight of an observation in the trend."""
    gamma: float = Field(0.3, ge=0, le=1)
    """Weight of an observation in the season."""
    damping: float = Field(0.97, gt=0, le=1)
    """The trend's factor for each interval ahead."""
    length_beta: float = Field(0.3, ge=0, le=1)
    """As ``beta``, for the lengths of prompts and answers, whose means are less certain."""
    length_damping: float = Field(0.9, gt=0, le=1)
    """As ``damping``, for lengths."""
    caution: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Mean errors of the forecast by which it is lowered before it sets a floor."""
    min_observations: int = Field(3, ge=2)
    """The number of observations from which on a forecast sets a floor: a rise at the start is known after a minute."""
    unspent_headroom: float = Field(0.5, ge=0, le=1)
    """The part of the fast loop's present headroom that a forecast has while no request is late or refused. The more
    of the error budget is being spent, the more of it, and all where all is. 1: always all."""
    enabled: bool = True

    @property
    def of_lengths(self) -> ForecastConfig:
        """The settings for lengths, which have their own trend."""
        return self.model_copy(update={"beta": self.length_beta, "damping": self.length_damping})


class AutoscalingConfig(Settings):
    """The settings of the autoscaler, for all tiers and each of them."""

    tiers: dict[str, TierScalingConfig] = Field(default_factory=dict)
    followers: dict[str, FollowerConfig] = Field(default_factory=dict)
    """Deployments beside the tiers that are scaled by the requests that flow through them, by name: Router,
    SafetyClassifier, Embedder, SemanticCache, or SmallModels."""
    pools: dict[str, float] = Field(default_factory=dict)
    """GPUs by pool, which the tiers of the pool share."""
    interval_s: Seconds = 1.0
    """The control interval. A call within it returns the decision that was made last. Replicas report twice in it. At
    most half of ``fast.stale_s``, or all reports would be stale when they are read, and at most 5."""
    timezone: str = "UTC"
    """The IANA time zone of schedules and of the daily season."""
    fast: FastLoopConfig = FastLoopConfig()
    forecast: ForecastConfig = ForecastConfig()

    def without(self, tiers: Collection[str]) -> Self:
        """Returns the settings without those of ``tiers``."""
        return self.model_copy(update={"tiers": {name: each for name, each in self.tiers.items() if name not in tiers}})

    @model_validator(mode="after")
    def _check_interval(self) -> Self:
        for limit, what in ((self.fast.stale_s, "fast.stale_s"), (LATE_S, f"{LATE_S:g} s, after which it is late")):
            if self.interval_s > MAX_INTERVAL_SHARE * limit:
                most = MAX_INTERVAL_SHARE * limit
                raise ValueError(f"interval_s is {self.interval_s:g}; it may be {most:g} at most, half of {what}")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name, tier in self.tiers.items():
            if tier.pool is not None and tier.pool not in self.pools:
                raise ValueError(f"tiers.{name}.pool: there is no pool {tier.pool!r}")
        if wrong := sorted(set(self.tiers) & set(self.followers)):
            raise ValueError(f"followers.{wrong[0]}: a tier has that name")
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, LookupError) as error:
            raise ValueError(f"timezone: there is no time zone {self.timezone!r}") from error
        return self


def _name_of(priority: Priority) -> ClassName:
    names: dict[Priority, ClassName] = {
        Priority.INTERACTIVE: "interactive",
        Priority.STANDARD: "standard",
        Priority.BATCH: "batch",
    }
    return names[priority]
