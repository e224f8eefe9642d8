"""``staffed`` and ``whole``: add headroom to the number of replicas that the mean load keeps busy, and round it up."""

from __future__ import annotations

from math import ceil, sqrt

EPSILON = 1e-6
"""Rounding must not turn a need of 2 into 3 replicas."""


def staffed(replicas: float, headroom: float, arrivals: float) -> float:
    """Returns ``replicas``, the number that the mean load keeps busy, with reserve for ``headroom`` standard deviations
    of a Poisson count. Its mean, ``arrivals``, is the number of arrivals within one TTFT objective, since a queue
    absorbs shorter peaks.

    The relative reserve is ``headroom / sqrt(arrivals)``, at most ``headroom``. So it shrinks as more requests share
    the replicas (square-root staffing: Halfin and Whitt, 1981).
    """
    return replicas * (1.0 + headroom / sqrt(max(1.0, arrivals)))


def whole(replicas: float) -> int:
    """Returns ``replicas`` rounded up to a whole number."""
    return ceil(replicas - EPSILON)
