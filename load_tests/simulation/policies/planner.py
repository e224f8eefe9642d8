"""``PlannerPolicy``: an SLA planner in the manner of NVIDIA Dynamo's, with its slow and its fast loop.

components/src/dynamo/planner: every 180 s the slow loop forecasts the request rate and mean lengths, and the capacity
of a profiled engine gives a floor. Every 5 s the fast loop predicts TTFT and ITL of each engine from its queue and
cache: one replica more if all engines would miss an objective, one fewer if the rest would keep both with a margin.
Nothing changes while a change is under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from load_tests.simulation.observation import Observation, ReplicaView
from load_tests.simulation.tier import Tier

THROUGHPUT_INTERVAL_S = 180.0
SENSITIVITY = 0.8  # of the objective that the queue may take after a step down
LEVEL_GAIN, TREND_GAIN = 0.5, 0.2  # of the local linear trend that forecasts


@dataclass(slots=True)
class _Trend:
    """A local linear trend (Holt): the steady state of a Kalman filter with a level and a slope."""

    level: float | None = None
    slope: float = 0.0

    def next(self, value: float) -> float:
        """Takes an observation and returns the forecast of the next one."""
        if self.level is None:
            self.level = value
            return value
        expected = self.level + self.slope
        level = expected + LEVEL_GAIN * (value - expected)
        self.slope += TREND_GAIN * (level - self.level - self.slope)
        self.level = level
        return max(level + self.slope, 0.0)


class PlannerPolicy:
    """Aggregated engines: each does prefill and decode."""

    name = "planner"
    interval_s = 5.0

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._rate, self._prompt, self._output = _Trend(), _Trend(), _Trend()
        self._next_forecast = THROUGHPUT_INTERVAL_S
        self._counted = (0.0, 0, 0.0, 0, 0)  # instant, arrivals, uncached tokens, finished, output tokens
        self._floor: int | None = None

    def decide(self, seen: Observation) -> int:
        """Returns the target of the fast loop, at least the floor of the slow loop: at first what there is."""
        if self._floor is None:
            self._floor = seen.target
        if seen.at >= self._next_forecast:
            self._forecast(seen)
            self._next_forecast = seen.at + THROUGHPUT_INTERVAL_S
        if seen.starting or seen.draining or not seen.ready:
            return max(seen.target, self._floor)
        slo = self._tier.slo
        count = len(seen.ready)
        if all(_ttft(each, 1.0) > slo.ttft_s or each.step_now_s > slo.itl_s for each in seen.ready):
            return max(seen.target + 1, self._floor)
        if count > 1 and all(self._keeps(each, count / (count - 1)) for each in seen.ready):
            return max(seen.target - 1, self._floor)
        return max(seen.target, self._floor)

    def _keeps(self, replica: ReplicaView, factor: float) -> bool:
        """Whether a replica would keep the objectives with ``factor`` times its queue and cache."""
        slo, profile = self._tier.slo, self._tier.profile
        sequences = (replica.decoding + len(replica.waiting)) * factor
        step = profile.decode_step_s(sequences, replica.kv_resident * factor)
        fits = replica.kv_reserved * factor < profile.kv_tokens
        return fits and _ttft(replica, factor) < SENSITIVITY * slo.ttft_s and step < SENSITIVITY * slo.itl_s

    def _forecast(self, seen: Observation) -> None:
        counters = seen.counters
        now = (
            seen.at,
            seen.arrivals,
            sum(each.uncached_tokens for each in counters),
            sum(each.finished for each in counters),
            sum(each.output_tokens for each in counters),
        )
        seconds, arrivals, prompt, finished, output = (a - b for a, b in zip(now, self._counted, strict=True))
        self._counted = now
        if not arrivals or not finished:
            return
        rate = self._rate.next(arrivals / seconds)
        lengths = max(self._prompt.next(prompt / arrivals), 1.0), max(self._output.next(output / finished), 1.0)
        self._floor = ceil(rate / self._tier.capacity_at(*lengths))


def _ttft(replica: ReplicaView, factor: float) -> float:
    """The wait of a new request for the queue before it."""
    return replica.backlog_s * factor
