"""``staffed`` and ``whole``: from the replicas that a mean load keeps busy to how many there should be."""

from __future__ import annotations

from math import ceil, sqrt

EPSILON = 1e-6
"""Rounding must not turn a need of 2 into 3 replicas."""


def staffed(replicas: float, headroom: float, arrivals: float) -> float:
    """Returns ``replicas`` with a spare part of ``headroom`` standard deviations of a Poisson count with the mean
    ``arrivals``: those of the flow within one TTFT objective, since a queue can wait out what is shorter.

    The spare part is ``headroom / sqrt(arrivals)``, so a tier needs the smaller a part of its replicas in reserve the
    more requests share them (square-root staffing: Halfin and Whitt, 1981), and at most ``headroom``.
    """
    return replicas * (1.0 + headroom / sqrt(max(1.0, arrivals)))


def whole(replicas: float) -> int:
    """Returns the least whole number of replicas that is not below ``replicas``."""
    return ceil(replicas - EPSILON)
