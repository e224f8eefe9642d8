"""The figures in which latencies are given."""

from __future__ import annotations

from collections.abc import Sequence


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and the 99th percentile; 0 if there are no values."""
    ordered = sorted(values) or [0.0]
    return {name: round(ordered[int(share * (len(ordered) - 1))], 2) for name, share in (("p50", 0.5), ("p99", 0.99))}
