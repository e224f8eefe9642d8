"""``Forecast``: Holt-Winters forecasts of one time series, with a damped trend and a multiplicative daily season.

Source: Holt (1957) and Winters (1960); the damped trend is that of Gardner and McKenzie (1985). As usual, the season
starts from the means of a whole first day. Until then the forecast has only a level and a trend.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.autoscaling.config import ForecastConfig

DAY_S = 86_400.0

MAX_JUMP, MIN_JUMP = 2.0, 1.0
"""An observation counts at most as MAX_JUMP times what was forecast for it, plus MIN_JUMP."""

SURPRISE, MIN_ERROR = 5.0, 0.07
"""An error of SURPRISE mean errors, each of which is at least the part MIN_ERROR of the forecast, is a step of the load
and no trend: the forecast starts anew from there. Otherwise it would carry the step on as a rise."""

MAX_STEPS = 60
"""Intervals that a forecast looks ahead, at most."""

MIN_SEASON = 0.05
"""The least factor of a part of the day, so that a quiet night can be divided by it."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The state after ``count`` observations. ``error`` is the mean absolute error of the forecasts.

    ``season`` has a factor for each part of the day, empty until all parts were observed. ``sums`` and ``visits`` are
    the sums and numbers of observations in each part of the first day. ``cut``: the last observation counted as less
    than it was, so that the rest of a step is still to come.
    """

    count: int = 0
    level: float = 0.0
    trend: float = 0.0
    error: float = 0.0
    season: tuple[float, ...] = ()
    sums: tuple[float, ...] = ()
    visits: tuple[float, ...] = ()
    cut: bool = False

    def observe(self, value: float, at_s: float, config: ForecastConfig) -> Forecast:
        """Returns the state with the observation ``value`` of the interval that ended at ``at_s``, in seconds of local
        time (``tier_policy.local_s``), by which days repeat."""
        slot = _slot(at_s - config.interval_s / 2, config.slots)
        known = self._with_season if self.season else self._without_season
        if not self.count:
            return known(value, slot, config)
        expected = max(0.0, self._expected(slot, config))
        most = MAX_JUMP * expected + MIN_JUMP
        value, cut = min(value, most), value > most
        error = self.error + config.alpha * (abs(value - expected) - self.error)
        after = known(value, slot, config)
        if self.cut or abs(value - expected) > SURPRISE * max(self.error, MIN_ERROR * expected):
            return replace(after, level=value / after._factor(slot), trend=0.0, error=self.error, cut=cut)
        return replace(after, error=error, cut=cut)

    def ahead(self, at_s: float, horizon_s: float, config: ForecastConfig) -> float | None:
        """Returns the highest value forecast for the intervals from ``at_s``, in seconds of local time, to
        ``horizon_s`` seconds later, less ``config.caution`` mean errors. None before ``config.min_observations``. Never
        negative.

        After a sudden change the errors are large, so that an old level does not keep replicas, nor a steep trend order
        them.
        """
        if self.count < config.min_observations:
            return None
        best, damped, factor = 0.0, 0.0, 1.0
        for step in range(1, max(1, min(MAX_STEPS, round(horizon_s / config.interval_s))) + 1):
            factor *= config.damping
            damped += factor
            season = self._factor(_slot(at_s + (step - 0.5) * config.interval_s, config.slots))
            best = max(best, (self.level + damped * self.trend) * season)
        return max(0.0, best - config.caution * self.error)

    def present(self, at_s: float, config: ForecastConfig) -> float:
        """Returns the value that the forecast takes for that of the instant ``at_s``, in seconds of local time: without
        trend, so that it lags behind a rise."""
        return max(0.0, self.level * self._factor(_slot(at_s, config.slots)))

    def with_slots(self, slots: int, at_s: float) -> Forecast:
        """Returns the state for a day of ``slots`` parts, at the instant ``at_s`` as in ``observe``. If it had another
        number, the season begins anew, as on the first day: its factors are those of other parts of the day."""
        known = len(self.season or self.sums)
        if known in (0, slots):
            return self
        factor = self.season[_slot(at_s, known)] if self.season else 1.0
        return replace(self, level=factor * self.level, trend=factor * self.trend, season=(), sums=(), visits=())

    def after_gap(self) -> Forecast:
        """Returns the state after missing observations: the same without the trend."""
        return replace(self, trend=0.0)

    def _factor(self, slot: int) -> float:
        return self.season[slot] if self.season else 1.0

    def _expected(self, slot: int, config: ForecastConfig) -> float:
        return (self.level + config.damping * self.trend) * self._factor(slot)

    def _smoothed(self, value: float, config: ForecastConfig) -> tuple[float, float]:
        """Returns level and trend after ``value``, which is without season. The first observation is the level."""
        if not self.count:
            return value, 0.0
        level = config.alpha * value + (1 - config.alpha) * (self.level + config.damping * self.trend)
        return level, config.beta * (level - self.level) + (1 - config.beta) * config.damping * self.trend

    def _with_season(self, value: float, slot: int, config: ForecastConfig) -> Forecast:
        level, trend = self._smoothed(value / self.season[slot], config)
        factor = self.season[slot]
        if level > 0:  # all observations of one visit to the slot have the weight gamma together
            weight = 1.0 - (1.0 - config.gamma) ** min(1.0, config.interval_s * config.slots / DAY_S)
            factor = max(MIN_SEASON, factor + weight * (value / level - factor))
        season = (*self.season[:slot], factor, *self.season[slot + 1 :])
        return replace(self, count=self.count + 1, level=level, trend=trend, season=season)

    def _without_season(self, value: float, slot: int, config: ForecastConfig) -> Forecast:
        level, trend = self._smoothed(value, config)
        if config.slots == 1:
            return Forecast(self.count + 1, level, trend)
        sums = list(self.sums or [0.0] * config.slots)
        visits = list(self.visits or [0.0] * config.slots)
        sums[slot] += value
        visits[slot] += 1.0
        mean = sum(sums) / sum(visits)
        if min(visits) == 0 or mean == 0:
            return Forecast(self.count + 1, level, trend, sums=tuple(sums), visits=tuple(visits))
        season = tuple(max(MIN_SEASON, total / n / mean) for total, n in zip(sums, visits, strict=True))
        return Forecast(self.count + 1, level / season[slot], season=season)


def _slot(at_s: float, slots: int) -> int:
    return int((at_s % DAY_S) / DAY_S * slots) % slots
