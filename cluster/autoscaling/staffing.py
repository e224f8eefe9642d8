"""``staffed``: square-root staffing."""

from __future__ import annotations

from math import sqrt


def staffed(replicas: float, headroom: float) -> float:
    """Returns ``replicas + headroom * sqrt(replicas)``: square-root staffing (Halfin and Whitt, 1981). The more
    replicas share the load, the smaller the part that must be spare. Below one replica the spare part is no larger than
    the load."""
    return replicas + headroom * min(replicas, sqrt(replicas))
