"""``Steadiness``: whether the arrivals at a tier have lately varied by no more than chance explains, around a constant
rate or along a line. Pure.

A tier whose load moves needs replicas in reserve, since a new one comes a cold start late. Where the load has been
steady for minutes, the queue absorbs what chance brings, and most of the reserve is idle. Where it falls along a line,
it is not expected back soon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

INTERVAL_S = 20.0
"""Seconds of one count."""

GAP_S = 2 * INTERVAL_S
"""Seconds without a counter after which nothing is known."""

LEAST, MOST = 15, 30
"""The number of counts from which steadiness is known, and of those that are remembered: of five and ten minutes."""

DEVIATIONS = 3.0
"""Standard deviations of chance that variance, trend and the latest counts of a steady flow may differ by."""

FALLING = 9
"""The number of the last counts along which a line has to fall: three minutes."""

LATEST = 5
"""The last fifth of the counts are the latest, which show a rise before the trend does."""


@dataclass(frozen=True, slots=True)
class Steadiness:
    """The arrivals in the last intervals and their dispersions, oldest first, and the counter at the beginning of the
    present interval. ``since_s`` None: nothing is known."""

    counts: tuple[float, ...] = ()
    dispersions: tuple[float, ...] = ()
    since_s: float | None = None
    since: float = 0.0

    def observe(self, at_s: float, arrivals: float, dispersion: float) -> Steadiness:
        """Returns the state after the counter of arrivals stood at ``arrivals`` at the instant ``at_s``. After a gap,
        or if clock or counter went back, everything is forgotten.

        ``dispersion`` is the variance of short counts by their mean lately, which is 1 of a Poisson process.
        """
        elapsed_s = self._elapsed_s(at_s)
        if not 0 <= elapsed_s < GAP_S or arrivals < self.since:
            return Steadiness(since_s=at_s, since=arrivals)
        if elapsed_s < INTERVAL_S:
            return self
        count = (arrivals - self.since) * INTERVAL_S / elapsed_s
        dispersions = (*self.dispersions, dispersion)[-MOST:]
        return Steadiness((*self.counts, count)[-MOST:], dispersions, at_s, arrivals)

    def is_steady(self, at_s: float) -> bool:
        """Returns whether the arrivals are known to be steady at the instant ``at_s``."""
        if not 0 <= self._elapsed_s(at_s) < GAP_S or len(self.counts) < LEAST:
            return False
        # One dispersion is of few counts: where requests come in batches, it alone would say now yes and now no.
        return steady(self.counts, sum(self.dispersions) / len(self.dispersions))

    def is_falling(self, at_s: float) -> bool:
        """Returns whether the arrivals are known to fall along a line at the instant ``at_s``."""
        if not 0 <= self._elapsed_s(at_s) < GAP_S or len(self.counts) < FALLING:
            return False
        return falling(self.counts[-FALLING:], sum(self.dispersions) / len(self.dispersions))

    def _elapsed_s(self, at_s: float) -> float:
        """Returns the seconds of the present interval; infinity if nothing is known."""
        return inf if self.since_s is None else at_s - self.since_s


def steady(counts: Sequence[float], dispersion: float) -> bool:
    """Returns whether at least LATEST ``counts`` are those of a constant rate: their variance (the index of dispersion,
    Cox and Lewis, 1966), the slope of their regression line and their latest mean differ by no more than DEVIATIONS
    standard deviations from what ``dispersion`` leads to expect. False if all are 0."""
    number = len(counts)
    mean = sum(counts) / number
    if not mean:
        return False
    variance = mean * dispersion
    found = sum((each - mean) ** 2 for each in counts) / (number - 1)
    slope, spread = _slope(counts)
    latest = counts[-(number // LATEST) :]
    return (
        found <= variance * (1 + DEVIATIONS * sqrt(2 / (number - 1)))
        and abs(slope) <= DEVIATIONS * sqrt(variance / spread)
        and abs(sum(latest) / len(latest) - mean) <= DEVIATIONS * sqrt(variance / len(latest))
    )


def falling(counts: Sequence[float], dispersion: float) -> bool:
    """Returns whether at least LATEST ``counts`` fall along a line: its slope is below 0, and the counts and the mean
    of the latest differ from it by no more than ``dispersion`` leads to expect, each by DEVIATIONS standard deviations.
    False if all are 0."""
    number = len(counts)
    mean = sum(counts) / number
    if not mean:
        return False
    variance = mean * dispersion
    slope, spread = _slope(counts)
    left = [each - mean - slope * (at - (number - 1) / 2) for at, each in enumerate(counts)]
    latest = left[-max(2, number // LATEST) :]
    return (
        slope < -DEVIATIONS * sqrt(variance / spread)
        and sum(each**2 for each in left) / (number - 2) <= variance * (1 + DEVIATIONS * sqrt(2 / (number - 2)))
        and abs(sum(latest) / len(latest)) <= DEVIATIONS * sqrt(variance / len(latest))
    )


def _slope(counts: Sequence[float]) -> tuple[float, float]:
    """Returns the slope of the regression line of ``counts``, and the sum of the squared distances of their places from
    the middle."""
    number = len(counts)
    middle = (number - 1) / 2
    spread = number * (number**2 - 1) / 12
    return sum((at - middle) * each for at, each in enumerate(counts)) / spread, spread
