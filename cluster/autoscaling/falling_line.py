"""``FallingLine``: a line along which the arrivals at a tier fall, and how well it is known. Pure.

A mean over the last minute is that of half a minute ago. Along a line, what is left of the load is known without that
delay, and chance is all that it may differ by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

LATEST = 5
"""The last fifth of the counts are the latest, which show a rise before the trend does."""

DEVIATIONS = 3.0
"""Standard deviations of chance that variance, trend and the latest counts of a flow may differ by."""


@dataclass(frozen=True, slots=True)
class FallingLine:
    """The regression line of ``number`` counts. ``mean`` is their mean, ``slope`` is below 0 and the change from one to
    the next, and ``variance`` that of a count around the line."""

    number: int
    mean: float
    slope: float
    variance: float

    def count(self, later: float) -> float:
        """Returns the count that the line predicts ``later`` intervals after the end of the last count. At least 0."""
        return max(0.0, self.mean + self.slope * (self.number / 2 + later))

    def error(self, later: float) -> float:
        """Returns the standard error of ``count``: how well the line is known there."""
        place = self.number / 2 + later
        return sqrt(self.variance * (1 / self.number + place**2 / spread(self.number)))


def falling_line(counts: Sequence[float], dispersion: float) -> FallingLine | None:
    """Returns the line along which at least LATEST ``counts`` fall: its slope is below 0, and the counts and the mean
    of the latest differ from it by no more than ``dispersion`` leads to expect, each by DEVIATIONS standard deviations.
    None if they do not, or all are 0."""
    number = len(counts)
    mean = sum(counts) / number
    if not mean:
        return None
    slope, variance = slope_of(counts), mean * dispersion
    left = [each - mean - slope * (at - (number - 1) / 2) for at, each in enumerate(counts)]
    latest = left[-max(2, number // LATEST) :]
    found = sum(each**2 for each in left) / (number - 2)
    falls = (
        slope < -DEVIATIONS * sqrt(variance / spread(number))
        and found <= variance * (1 + DEVIATIONS * sqrt(2 / (number - 2)))
        and abs(sum(latest) / len(latest)) <= DEVIATIONS * sqrt(variance / len(latest))
    )
    return FallingLine(number, mean, slope, max(variance, found)) if falls else None


def slope_of(counts: Sequence[float]) -> float:
    """Returns the slope of the regression line of ``counts``."""
    middle = (len(counts) - 1) / 2
    return sum((at - middle) * each for at, each in enumerate(counts)) / spread(len(counts))


def spread(number: int) -> float:
    """Returns the sum of the squared distances of ``number`` places from the middle."""
    return number * (number**2 - 1) / 12
