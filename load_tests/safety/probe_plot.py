"""A probe as a picture: the share that was flagged, by shape and set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from load_tests.safety.probe import Row

HARMFUL, HARMLESS = ("#b5432e", "#d9822b", "#7a2e22"), ("#0b7a75", "#7fb8b4", "#22303c")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Writes the picture to ``path``: attacks should reach 100 %, harmless sets stay at 0."""
    shapes = list(dict.fromkeys(row.shape for row in rows))
    sets = list(dict.fromkeys((row.set, row.harmful) for row in rows))
    height = 0.8 / len(sets)
    figure = Figure(figsize=(7, 0.45 * len(shapes) + 1.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    colours = {True: iter(HARMFUL * len(sets)), False: iter(HARMLESS * len(sets))}
    for place, (name, harmful) in enumerate(sets):
        rates = {row.shape: 100 * row.rate for row in rows if row.set == name}
        at = [index + place * height for index, shape in enumerate(shapes) if shape in rates]
        axes.barh(
            at, [rates[shape] for shape in shapes if shape in rates], height, label=name, color=next(colours[harmful])
        )
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(shapes))], shapes)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% flagged")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(sets), frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
