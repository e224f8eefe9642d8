"""``staffed`` and ``whole``: from the replicas that a mean load keeps busy to how many there should be."""

from __future__ import annotations

from math import ceil, sqrt

EPSILON = 1e-6
"""Rounding must not turn a need of 2 into 3 replicas."""


def staffed(replicas: float, headroom: float) -> float:
    """Returns ``replicas + headroom * sqrt(replicas)``: square-root staffing (Halfin and Whitt, 1981). The more
    replicas share the load, the smaller the part that must be spare. Below one replica the spare part is no larger than
    the load."""
    return replicas + headroom * min(replicas, sqrt(replicas))


def whole(replicas: float) -> int:
    """Returns the least whole number of replicas that is not below ``replicas``."""
    return ceil(replicas - EPSILON)
