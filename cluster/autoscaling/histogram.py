"""``LatencyHistogram``: counts of latencies by bucket. Histograms of several sources can be added exactly; their
percentiles cannot be averaged."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Self

LATENCY_BOUNDS_S = (
    *(0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0),
)
"""Upper bounds of buckets in seconds, for TTFT and ITL alike. An objective between two bounds is read by
interpolation."""


@dataclass(frozen=True, slots=True)
class LatencyHistogram:
    """A histogram. ``counts[i]`` is the number of latencies of at most ``bounds_s[i]`` seconds that exceed the bound
    before. ``counts`` has one member more than ``bounds_s``, for latencies above all bounds. ``sum_s`` is the sum of
    all latencies in seconds; None: unknown."""

    counts: tuple[int, ...]
    bounds_s: tuple[float, ...] = LATENCY_BOUNDS_S
    sum_s: float | None = field(default=None, compare=False)

    @classmethod
    def of(cls, latencies_s: Iterable[float], bounds_s: tuple[float, ...] = LATENCY_BOUNDS_S) -> Self:
        """Returns the histogram of ``latencies_s``, in seconds. ``bounds_s`` are the upper bounds of the buckets, in
        seconds."""
        counts, sum_s = [0] * (len(bounds_s) + 1), 0.0
        for latency in latencies_s:
            counts[bisect_left(bounds_s, latency)] += 1
            sum_s += latency
        return cls(tuple(counts), bounds_s, sum_s)

    @property
    def total(self) -> int:
        """The total number of latencies."""
        return sum(self.counts)

    @property
    def valid(self) -> bool:
        """Whether no count is negative, there is one count more than bounds, and the bounds are finite and
        ascending."""
        ascending = all(low < high for low, high in pairwise(self.bounds_s))
        sound = len(self.counts) == len(self.bounds_s) + 1 and min(self.counts) >= 0
        return sound and ascending and all(map(isfinite, self.bounds_s))

    @property
    def mean_s(self) -> float | None:
        """The mean in seconds; None without latencies or their sum. Buckets alone do not tell it: the middle of one may
        be half as much again as what is in it."""
        return None if self.sum_s is None or not self.total else self.sum_s / self.total

    def above(self, limit_s: float) -> float:
        """Returns the number of latencies above ``limit_s`` seconds, by linear interpolation within a bucket. All of
        the last bucket are above every limit."""
        total = float(self.counts[-1])
        for low, high, count in zip((0.0, *self.bounds_s), self.bounds_s, self.counts, strict=False):
            total += count * min(1.0, max(0.0, (high - limit_s) / (high - low)))
        return total

    def quantile(self, q: float) -> float:
        """Returns the ``q`` quantile in seconds, by linear interpolation within a bucket, as Prometheus'
        histogram_quantile. Returns the highest bound if the quantile lies above all bounds, and 0 if the histogram is
        empty."""
        rank, below = q * self.total, 0
        for i, count in enumerate(self.counts[:-1]):
            if count and below + count >= rank:
                low = self.bounds_s[i - 1] if i else 0.0
                return low + (self.bounds_s[i] - low) * max(0.0, rank - below) / count
            below += count
        return self.bounds_s[-1] if self.total and self.bounds_s else 0.0


def merged(histograms: Iterable[LatencyHistogram]) -> LatencyHistogram | None:
    """Returns the sum of ``histograms``. Those with other bounds than the first are left out, since their counts
    cannot be added. None if there is no histogram."""
    bounds: tuple[float, ...] | None = None
    counts: list[int] = []
    sum_s: float | None = 0.0
    for each in histograms:
        if bounds is None:
            bounds, counts, sum_s = each.bounds_s, list(each.counts), each.sum_s
        elif each.bounds_s == bounds:
            counts = [a + b for a, b in zip(counts, each.counts, strict=True)]
            sum_s = None if sum_s is None or each.sum_s is None else sum_s + each.sum_s
    return None if bounds is None else LatencyHistogram(tuple(counts), bounds, sum_s)
