"""The table of what the semantic cache does to sets of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from load_tests.cache.figures import AtThreshold, area_under_curve, at_threshold, recall_at
from load_tests.cache.stage import Scores

BOUNDS = (0.01, 0.03)


class SetFigures(NamedTuple):
    """Of one set. ``cosine`` and ``pair``: area under the curve by cosine alone, and by the score of both stages; the
    guard ranks nothing, and is in the other figures.

    ``cosine_recall`` and ``recall``: where exactly the bound of false hits in this set is reached, by bound.
    ``guarded`` and ``free``: at the shipped threshold for a bound, with the guard and without it.
    """

    name: str
    same: int
    different: int
    cosine: float
    pair: float
    cosine_recall: Mapping[float, float]
    recall: Mapping[float, float]
    guarded: Mapping[float, AtThreshold]
    free: Mapping[float, AtThreshold]


def set_figures(name: str, scores: Scores, thresholds: Mapping[float, float]) -> SetFigures:
    """Returns the figures of a set. ``thresholds``: by bound."""
    both = bool(scores.same.any() and not scores.same.all())
    return SetFigures(
        name,
        int(scores.same.sum()),
        int((~scores.same).sum()),
        area_under_curve(scores.cosine, scores.same),
        area_under_curve(scores.score, scores.same),
        {bound: recall_at(scores.cosine, scores.same, bound) for bound in thresholds} if both else {},
        {bound: recall_at(scores.guarded, scores.same, bound) for bound in thresholds} if both else {},
        {bound: at_threshold(scores.guarded, scores.same, each) for bound, each in thresholds.items()},
        {bound: at_threshold(scores.score, scores.same, each) for bound, each in thresholds.items()},
    )


def markdown(figures: Sequence[SetFigures]) -> str:
    """Returns the table: a row for each set."""
    bounds = sorted({bound for each in figures for bound in each.guarded})
    head = ["set", "same", "different", "AUC cosine", "AUC"]
    for bound in bounds:
        head += [f"same: hits at {bound:.0%}".replace("%", " %"), f"different: hits at {bound:.0%}".replace("%", " %")]
    lines = [head, ["---"] * len(head)]
    for each in figures:
        row = [each.name, f"{each.same:,}", f"{each.different:,}", _number(each.cosine), _number(each.pair)]
        for bound in bounds:
            guarded, free = each.guarded[bound], each.free[bound]
            row += [
                f"{_share(guarded.recall)} ({_share(free.recall)})",
                f"{_share(guarded.false_hit_rate)} ({_share(free.false_hit_rate)})",
            ]
        lines.append(row)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"  # NaN is not equal to itself


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("%", " %")
