"""``TtftCorrection``: the factor by which measured TTFTs of one replica lately differ from predicted ones. Pure."""

from __future__ import annotations

from math import exp, log

LEAST, MOST = 0.2, 5.0
"""Bounds of the factor. Beyond them the prediction is wrong in a way that a factor does not repair."""

WEIGHT = 0.05
"""Weight of a new measurement in the mean, once there are enough."""

SURPRISE = log(2)
"""Most that one measurement counts as away from the mean: single requests wait for a client, a grammar, a compiler."""

LEAST_S = 1e-4
"""TTFTs below are not distinguished."""


class TtftCorrection:
    """The robust mean of measured by predicted TTFT, on a logarithmic scale. ``factor`` is 1 until one was measured."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0

    @property
    def factor(self) -> float:
        """The factor, LEAST to MOST."""
        return min(max(exp(self._mean), LEAST), MOST)

    def observe(self, predicted_s: float, measured_s: float) -> None:
        """Records a TTFT. ``predicted_s`` is what was predicted with the ``factor`` of that time taken out."""
        off = log(max(measured_s, LEAST_S) / max(predicted_s, LEAST_S)) - self._mean
        self._count += 1
        weight = max(WEIGHT, 1 / (self._count + 1))
        self._mean += weight * min(max(off, -SURPRISE), SURPRISE)
        self._mean = min(max(self._mean, log(LEAST)), log(MOST))
