"""Percentiles and summaries of a sample, in plain Python: the generator should start fast and stay small."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAN = float("nan")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The ``percent``-th percentile of values already sorted, interpolated linearly; NaN for an empty sample."""
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be between 0 and 100, got {percent}")
    if not ordered:
        return NAN
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class Summary:
    """A sample in a few numbers; NaN throughout for an empty one."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """The summary of ``values``, in any order."""
        ordered = sorted(values)
        if not ordered:
            return cls(0, NAN, NAN, NAN, NAN, NAN)
        mean = math.fsum(ordered) / len(ordered)
        p50, p90, p99 = (percentile(ordered, q) for q in (50, 90, 99))
        return cls(len(ordered), mean, p50, p90, p99, ordered[-1])


def rate_over_time(events: Iterable[tuple[float, float]], end: float, width: float) -> list[float]:
    """Weight per second in consecutive bins of ``width`` seconds from 0 to ``end``; ``events`` are (time, weight)."""
    bins = [0.0] * max(1, math.ceil(end / width))
    for time, weight in events:
        bins[min(max(int(time / width), 0), len(bins) - 1)] += weight
    last = end - width * (len(bins) - 1)  # the last bin is usually shorter
    widths = [width] * (len(bins) - 1) + [last if last > 0 else width]
    return [weight / span for weight, span in zip(bins, widths, strict=True)]
