"""How much the chances of the cheaper tiers are lowered, so that ``auto`` takes none by mistake. It is chosen on
requests that nothing was fitted to.

Where two tiers are forecast alike, the one that is chosen is often the one whose chance is too high by mistake (the
winner's curse). A margin in log-odds lowers chances near 0.5 by much and those near 1 by little, so that a cheaper tier
is taken where it is nearly certain to be right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deployments.models.training.routing.sweep import Item
from router.tiers.quality_forecast import Forecaster, cheapest_within

MARGINS = tuple(step / 4 for step in range(17))  # in log-odds
"""4 turns a chance of 0.98 into 0.47: at a tolerance of 0.05 hardly any request goes to a cheaper tier."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Right answers of ``auto`` less those of the best tier alone, as a share of the requests, and the standard error
    of that. ``elsewhere`` is the share of requests that went to another tier than the best."""

    mean: float
    error: float
    elsewhere: float

    @property
    def low(self) -> float:
        """The lower bound of one standard error."""
        return self.mean - self.error


def difference(
    items: Sequence[Item], expected: Sequence[Sequence[float]], best: int, tolerance: float, margin: float
) -> Difference:
    """Compares the choices at ``tolerance`` with tier ``best`` alone. ``expected`` are the chances by request and tier;
    those of the tiers in front of ``best`` are lowered by ``margin``."""
    chosen = [cheapest_within(lowered(chances, best, margin), tolerance) for chances in expected]
    gains = [item.right[tier] - item.right[best] for item, tier in zip(items, chosen, strict=True)]
    count = len(gains)
    mean = sum(gains) / count
    spread = sum((gain - mean) ** 2 for gain in gains) / count
    return Difference(mean, math.sqrt(spread / count), sum(tier != best for tier in chosen) / count)


def least_margin(
    items: Sequence[Item], expected: Sequence[Sequence[float]], best: int, tolerance: float, loss: float
) -> float:
    """Returns the least of MARGINS at which, at ``tolerance``, the lower bound of the difference from tier ``best`` is
    at most ``loss`` below 0; the largest if none is."""
    for margin in MARGINS:
        if difference(items, expected, best, tolerance, margin).low >= -loss:
            return margin
    return MARGINS[-1]


def lowered(chances: Sequence[float], best: int, margin: float) -> list[float]:
    """Returns the chances with those in front of ``best`` lowered by ``margin``."""
    factor = math.exp(-margin)
    cheaper = [chance * factor / (chance * factor + 1 - chance) for chance in chances[:best]]
    return [*cheaper, *chances[best:]]


def with_margin(forecaster: Forecaster, best: int, margin: float) -> Forecaster:
    """Returns a forecaster that tells the chances of the tiers in front of ``best`` lower by ``margin``."""
    bias = [each - margin for each in forecaster.bias[:best]]
    return replace(forecaster, bias=(*bias, *forecaster.bias[best:]))
