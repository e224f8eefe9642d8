"""A run as a picture: for each model, accuracy by length, and by depth at the greatest length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from load_tests.dilution.report import Cell, cells
from load_tests.dilution.trial import STRATEGIES, Trial

INK, FAINT = "#22303c", "#d7dee3"
COLORS = dict(zip(STRATEGIES, ("#d9822b", "#0b7a75", "#22303c"), strict=True))
MARKS = dict(zip(STRATEGIES, ("o", "s", "^"), strict=True))


def draw(trials: Sequence[Trial], path: Path) -> None:
    """Writes the picture to ``path``: a row of panels per model."""
    found = cells(trials)
    models = list(dict.fromkeys(cell.model for cell in found))
    figure = Figure(figsize=(8.4, 2.7 * len(models) + 0.6), dpi=130, layout="constrained")
    rows = figure.subplots(len(models), 2, sharey=True, squeeze=False)
    for model, (left, right) in zip(models, rows, strict=True):
        own = [cell for cell in found if cell.model == model]
        longest = max(cell.length for cell in own)
        _lines(left, [cell for cell in own if cell.depth is None], by_depth=False)
        _lines(right, [cell for cell in own if cell.depth is not None and cell.length == longest], by_depth=True)
        left.set_ylabel(f"{model}\nright answers, %", color=INK)
        left.set_xscale("log", base=2)
        lengths = sorted({cell.length for cell in own})
        left.set_xticks(lengths, [f"{length:,}" for length in lengths])
        left.set_xlabel("tokens of notes, all depths")
        right.set_xlabel(f"depth of the fact, % of {longest:,} tokens")
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle("A planted fact is found", fontsize=11, color=INK, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _lines(axes: Axes, found: Sequence[Cell], *, by_depth: bool) -> None:
    for strategy in STRATEGIES:
        own = [cell for cell in found if cell.strategy == strategy]
        if own:
            places = [100 * (cell.depth or 0) if by_depth else cell.length for cell in own]
            shares = [100 * cell.accuracy for cell in own]
            axes.plot(places, shares, color=COLORS[strategy], marker=MARKS[strategy], label=strategy, clip_on=False)
    axes.set_ylim(0, 100)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
