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
from typing import NamedTuple

from cluster.autoscaling.falling_line import DEVIATIONS, LATEST, FallingLine, falling_line, slope_of, spread

INTERVAL_S = 20.0
"""Seconds of one count."""

GAP_S = 2 * INTERVAL_S
"""Seconds without a counter after which nothing is known."""

LEAST, MOST = 15, 30
"""The number of counts from which steadiness is known, and of those that are remembered: of five and ten minutes."""

FALLING = 9
"""The number of the last counts along which a line has to fall: three minutes."""

LASTING = 5
"""The number of counts before which the arrivals have to have fallen along a line, too, before they are followed:
between two bursts they fall for a minute or two."""


class Fall(NamedTuple):
    """The present rate of arrivals that fall along a line, and its standard error, in requests/s."""

    rate: float
    error: float


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
        return self._line(at_s, sum(self.dispersions) / max(1, len(self.dispersions))) is not None

    def fall(self, at_s: float) -> Fall | None:
        """Returns the rate to which the arrivals have fallen along a line at the instant ``at_s``. None if they are not
        known to fall now and LASTING counts ago, or leave the line by more than single requests explain: what comes in
        clumps may come back as one."""
        line = self._line(at_s, 1.0)
        if line is None or not self._has_lasted():
            return None
        later = self._elapsed_s(at_s) / INTERVAL_S
        return Fall(line.count(later) / INTERVAL_S, line.error(later) / INTERVAL_S)

    def _line(self, at_s: float, dispersion: float) -> FallingLine | None:
        if not 0 <= self._elapsed_s(at_s) < GAP_S or len(self.counts) < FALLING:
            return None
        return falling_line(self.counts[-FALLING:], dispersion)

    def _has_lasted(self) -> bool:
        """Returns whether the arrivals were known to fall along a line before the last LASTING counts."""
        before = self.counts[-FALLING - LASTING : -LASTING]
        return len(before) == FALLING and falling_line(before, 1.0) is not None

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
    slope = slope_of(counts)
    latest = counts[-(number // LATEST) :]
    return (
        found <= variance * (1 + DEVIATIONS * sqrt(2 / (number - 1)))
        and abs(slope) <= DEVIATIONS * sqrt(variance / spread(number))
        and abs(sum(latest) / len(latest) - mean) <= DEVIATIONS * sqrt(variance / len(latest))
    )
