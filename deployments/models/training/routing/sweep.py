"""Accuracy against compute, by tolerance: what a forecaster's choices come to on tasks that every tier has answered.

Compute is tokens x parameters (two operations per token and weight, and nothing for attention, which these lengths
hardly need), told as a part of what the dearest tier alone would take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.tiers.quality_forecast import cheapest_within

STEPS = 200  # of the tolerance between 0 and 1


@dataclass(frozen=True, slots=True)
class Item:
    """One task: by tier, weakest first, whether the answer was right and the tokens (prompt and answer) it took."""

    right: tuple[bool, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What a way of choosing comes to. ``accuracy`` is the share of right answers, ``compute`` is relative to the last
    tier alone; ``shares`` is how the tasks went to the tiers."""

    accuracy: float
    compute: float
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A tolerance and what it comes to."""

    tolerance: float
    point: Point


def outcome(items: Sequence[Item], chosen: Sequence[int], parameters: Sequence[int]) -> Point:
    """What it comes to when each of ``items`` goes to the tier of ``chosen``. ``parameters`` by tier."""
    spent = sum(item.tokens[tier] * parameters[tier] for item, tier in zip(items, chosen, strict=True))
    whole = sum(item.tokens[-1] * parameters[-1] for item in items)
    right = sum(item.right[tier] for item, tier in zip(items, chosen, strict=True))
    shares = tuple(sum(tier == other for other in chosen) / len(items) for tier in range(len(parameters)))
    return Point(right / len(items), spent / whole, shares)


def sweep(
    items: Sequence[Item], expected: Sequence[Sequence[float]], parameters: Sequence[int], steps: int = STEPS
) -> list[Setting]:
    """Tolerances from 0 to 1 in equal ``steps``, each with what it comes to. ``expected`` are the chances by task and
    tier."""
    tolerances = [step / steps for step in range(steps + 1)]
    return [
        Setting(tolerance, outcome(items, [cheapest_within(chances, tolerance) for chances in expected], parameters))
        for tolerance in tolerances
    ]


def oracle(items: Sequence[Item], parameters: Sequence[int]) -> Point:
    """The bound of all choosing: the cheapest tier that is right, and the cheapest where none is."""
    return outcome(items, [item.right.index(True) if any(item.right) else 0 for item in items], parameters)


def best(settings: Sequence[Setting], accuracy: float) -> Setting | None:
    """The setting of least compute with at least this ``accuracy``; None if no tolerance reaches it."""
    enough = [setting for setting in settings if setting.point.accuracy >= accuracy]
    return min(enough, key=lambda setting: setting.point.compute, default=None)
