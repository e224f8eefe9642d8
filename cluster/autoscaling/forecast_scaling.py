"""``ForecastScaling``: forecasts the flow of requests into a tier, which sets a minimum number of replicas."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cluster.autoscaling.arrival_rate import ArrivalCounts, ArrivalRate
from cluster.autoscaling.config import ForecastConfig
from cluster.autoscaling.forecast import Forecast

MAX_GAP = 3.0
"""Intervals that may pass between two observations before the trend is forgotten and the observation is dropped."""


@dataclass(frozen=True, slots=True)
class ForecastScaling:
    """The forecasts of arrivals per second and of their lengths, and the counters at the start of the present interval.

    ``ahead`` is the highest forecast flow until replicas that are ordered now would be ready; None until there are
    enough observations. ``present`` is the rate that the forecast took for that of the end of the last interval.
    ``confirmed`` is the lowest share of the arrivals, during the interval, that other signals confirmed.
    """

    start: ArrivalCounts | None = None
    confirmed: float = 1.0
    rate: Forecast = field(default_factory=Forecast)
    prompt_tokens: Forecast = field(default_factory=Forecast)
    output_tokens: Forecast = field(default_factory=Forecast)
    ahead: ArrivalRate | None = None
    present: float = 0.0

    def observe(
        self,
        point: ArrivalCounts | None,
        confirmed: float,
        cold_start_s: float,
        ahead_s: float,
        config: ForecastConfig,
        steady: bool = False,
    ) -> ForecastScaling:
        """Returns the state after a tick. The forecasts change once in an interval.

        ``point`` has the counters; None: they are unknown, and the state does not change. If ``config`` disables
        forecasts, everything is forgotten, so that none sets a floor any more. ``confirmed`` is the share of the
        arrivals, 0 to 1, that other signals confirm, so that the forecasts do not learn from a wrong counter.
        ``cold_start_s`` is the seconds that a replica takes to start: the forecast looks that far ahead. Local time, by
        which days repeat, is ``ahead_s`` seconds ahead of the counters' clock. ``steady``: the arrivals vary by no more
        than chance explains, so that a trend of theirs is chance, too.
        """
        if not config.enabled:
            return ForecastScaling()
        if point is None:
            return self
        if self.start is None or point.at_s < self.start.at_s or point.arrivals < self.start.arrivals:
            return replace(self, start=point, confirmed=1.0)
        elapsed_s = point.at_s - self.start.at_s
        if elapsed_s < config.interval_s:
            return replace(self, confirmed=min(self.confirmed, confirmed)) if confirmed < self.confirmed else self
        if elapsed_s > MAX_GAP * config.interval_s:
            return replace(self, start=point, confirmed=1.0, rate=self.rate.after_gap())
        return self._with_interval(self.start, point, cold_start_s, ahead_s, config, steady)

    def _with_interval(
        self,
        start: ArrivalCounts,
        end: ArrivalCounts,
        cold_start_s: float,
        ahead_s: float,
        config: ForecastConfig,
        steady: bool,
    ) -> ForecastScaling:
        local_s = end.at_s + ahead_s
        arrivals = end.arrivals - start.arrivals
        finished = end.finished - start.finished
        rate, prompts, outputs = (
            each.with_slots(config.slots, local_s) for each in (self.rate, self.prompt_tokens, self.output_tokens)
        )
        lengths = config.of_lengths
        rate = rate.observe(self.confirmed * arrivals / (end.at_s - start.at_s), local_s, config)
        if arrivals:
            prompts = prompts.observe(max(0.0, end.prompt_tokens - start.prompt_tokens) / arrivals, local_s, lengths)
        if finished > 0:
            outputs = outputs.observe(max(0.0, end.output_tokens - start.output_tokens) / finished, local_s, lengths)
        horizon_s = cold_start_s + config.interval_s
        ahead = None
        if (expected := (rate.after_gap() if steady else rate).ahead(local_s, horizon_s, config)) is not None:
            ahead = ArrivalRate(
                expected,
                prompts.ahead(local_s, horizon_s, lengths) or 0.0,
                outputs.ahead(local_s, horizon_s, lengths) or 0.0,
            )
        return ForecastScaling(end, 1.0, rate, prompts, outputs, ahead, rate.present(local_s, config))
