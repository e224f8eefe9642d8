"""``ArrivalRate``: the arrival rate of requests at a tier, from counters that count up. Batch work is left out."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import pairwise
from math import isfinite, sqrt

from cluster.autoscaling.snapshot import TierSnapshot
from engine.api import Priority

POINTS = 60
"""Points of the memory within its window."""

SHORTEST = 30.0
"""The long window has this many times the length of the shortest one that may have a rate of its own."""

SETTLED = 12.0
"""The long window has this many times the length of its last part, in which a step would pass for a batch."""

RECENT = 3.0
"""The long window has this many times the length of the one in which refusals and answers that end count."""

CERTAINTY = 1.75
"""Three and a half standard deviations of the root of a Poisson count, which are 1/2 each (Anscombe, 1948): three would
be too few, since up to sixty instants are looked at. Where arrivals come in batches, they are larger by the root of the
dispersion."""

MIN_COUNTS = 8
"""Counts between points below which the dispersion is not known."""


@dataclass(frozen=True, slots=True)
class ArrivalCounts:
    """The counters of a tier at an instant, summed over the classes that users wait for."""

    at_s: float
    arrivals: float = 0.0
    refusals: float = 0.0
    prompt_tokens: float = 0.0
    finished: float = 0.0
    output_tokens: float = 0.0
    late: float = 0.0


@dataclass(frozen=True, slots=True)
class ArrivalRate:
    """The arrivals at a tier: requests per second, their mean lengths in tokens, and the share that was refused lately.

    The lengths are 0 while nothing arrived or finished. ``mean_rate`` is the rate over the long window. ``rate`` is
    that or the one since it last changed (``rate_since_change``), the higher of both. ``served`` requests ended per
    second lately.
    """

    rate: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    refused: float = 0.0
    mean_rate: float = 0.0
    served: float = 0.0


def point_of(tier: TierSnapshot, at_s: float, stale_s: float) -> ArrivalCounts | None:
    """Returns the counters of ``tier`` at ``at_s``, summed over all classes but BATCH. None if there are none, they are
    older than ``stale_s`` seconds, or they are not finite numbers."""
    counted_at_s = at_s if tier.counted_at_s is None else tier.counted_at_s
    waited_for = [counters for priority, counters in tier.counters.items() if priority is not Priority.BATCH]
    if not tier.counters or not -1.0 <= at_s - counted_at_s <= stale_s:
        return None
    point = ArrivalCounts(
        at_s,
        sum(each.arrivals for each in waited_for),
        sum(each.refusals for each in waited_for),
        sum(each.prompt_tokens for each in waited_for),
        sum(each.finished for each in waited_for),
        sum(each.output_tokens for each in waited_for),
        sum(each.late for each in waited_for),
    )
    numbers = astuple(point)
    return point if all(map(isfinite, numbers)) and min(numbers[1:]) >= 0 else None


def remembered(
    points: tuple[ArrivalCounts, ...], new: ArrivalCounts | None, window_s: float
) -> tuple[ArrivalCounts, ...]:
    """Returns ``points`` with ``new`` added, and without points that are too old for the window.

    ``new`` None: ``points`` are returned unchanged. If the counters fell, their source was restarted, and all earlier
    points are dropped.
    """
    if new is None:
        return points
    if points and min(b - a for a, b in zip(astuple(points[-1]), astuple(new), strict=True)) < 0:
        return (new,)
    kept = points
    if len(kept) > 1 and kept[-1].at_s - kept[-2].at_s < window_s / POINTS:
        kept = kept[:-1]
    start = sum(point.at_s <= new.at_s - window_s for point in kept)  # the last of these begins the window
    return (*kept[max(0, start - 1) :], new)


def flow_of(points: tuple[ArrivalCounts, ...], window_s: float) -> ArrivalRate | None:
    """Returns the flow over the last ``window_s`` seconds. None if fewer than two points are known."""
    if len(points) < 2:
        return None
    long, long_s = _difference(points, window_s)
    recent, recent_s = _difference(points, window_s / RECENT)
    mean_rate = long.arrivals / long_s
    return ArrivalRate(
        rate=max(mean_rate, rate_since_change(points, window_s) or 0.0),
        # Refused requests have no prompt here: ``refusals`` makes up for them.
        prompt_tokens=long.prompt_tokens / long.arrivals if long.arrivals else 0.0,
        output_tokens=long.output_tokens / long.finished if long.finished else 0.0,
        refused=min(1.0, recent.refusals / recent.arrivals) if recent.arrivals else 0.0,
        mean_rate=mean_rate,
        served=recent.finished / recent_s,
    )


def rate_since_change(points: tuple[ArrivalCounts, ...], window_s: float) -> float | None:
    """Returns the rate since it last changed within the last ``window_s`` seconds by more than chance explains. None if
    it did not change.

    With a shorter window in its place, each chance cluster after a step would be compared with a mean that still has
    what was before the step in it, and would pass for another step.
    """
    last = points[-1]
    begin = max(sum(point.at_s <= last.at_s - window_s for point in points) - 1, 0)
    chance = CERTAINTY * sqrt(dispersion_of(points, window_s))
    changed = None
    # Binary segmentation (Scott and Knott, 1974): a large step hides a later one until what was before it is left out.
    while (found := _change(points, begin, window_s, chance)) is not None:
        begin = changed = found
    if changed is None:
        return None
    return (last.arrivals - points[changed].arrivals) / (last.at_s - points[changed].at_s)


def _change(points: tuple[ArrivalCounts, ...], begin: int, window_s: float, chance: float) -> int | None:
    """Returns the index of the point before and after which the roots of the rates differ by most standard deviations,
    from that at ``begin`` on. None if it is no more than ``chance`` at any."""
    first, last = points[begin], points[-1]
    found, most = None, chance
    for at in range(begin + 1, len(points) - 1):
        point = points[at]
        before_s, after_s = point.at_s - first.at_s, last.at_s - point.at_s
        if before_s < window_s / SETTLED or after_s < window_s / SHORTEST:
            continue
        before, after = (point.arrivals - first.arrivals) / before_s, (last.arrivals - point.arrivals) / after_s
        change = abs(sqrt(after) - sqrt(before)) / sqrt(1 / before_s + 1 / after_s)
        if change > most:
            found, most = at, change
    return found


def fell_below(points: tuple[ArrivalCounts, ...], rate: float, within_s: float, window_s: float) -> bool:
    """Returns whether fewer requests came for some part of the last ``within_s`` seconds, up to now, than ``rate``
    requests a second and chance explain. ``window_s`` is that of ``flow_of``."""
    if len(points) < 2:
        return False
    last = points[-1]
    chance = CERTAINTY * sqrt(dispersion_of(points, window_s))
    for point in points[:-1]:
        elapsed_s = last.at_s - point.at_s
        if not window_s / SHORTEST <= elapsed_s <= within_s:
            continue
        if sqrt(rate * elapsed_s) - sqrt(last.arrivals - point.arrivals) > chance:
            return True
    return False


def dispersion_of(points: tuple[ArrivalCounts, ...], window_s: float) -> float:
    """Returns the variance of arrivals between two points by their mean, without the last part of the window: 1 for a
    Poisson process, more if requests come in batches. At least 1, also if too little is known.

    The variance is that of successive differences (von Neumann, 1941), which a step or ramp of the rate hardly moves.
    The largest difference is left out: a step from nothing would pass for a batch.
    """
    recent_s = window_s / SETTLED
    known = [point.arrivals for point in points if point.at_s <= points[-1].at_s - recent_s]
    counts = [b - a for a, b in pairwise(known)]
    if len(counts) < MIN_COUNTS or not sum(counts):
        return 1.0
    squares = sorted((b - a) ** 2 for a, b in pairwise(counts))[:-1]
    variance = sum(squares) / (2 * len(squares))
    return max(1.0, variance * len(counts) / sum(counts))


def _difference(points: tuple[ArrivalCounts, ...], window_s: float) -> tuple[ArrivalCounts, float]:
    """Returns what was counted within the window, and its length in seconds: above 0, at least to the point before the
    last."""
    last = points[-1]
    first = points[-2]
    for point in reversed(points[:-1]):
        first = point
        if point.at_s <= last.at_s - window_s:
            break
    return ArrivalCounts(
        last.at_s,
        last.arrivals - first.arrivals,
        last.refusals - first.refusals,
        last.prompt_tokens - first.prompt_tokens,
        last.finished - first.finished,
        last.output_tokens - first.output_tokens,
    ), max(1e-3, last.at_s - first.at_s)
