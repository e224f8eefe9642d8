"""A run as a picture: a row per family, a panel per level, a dot per model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from load_tests.quality.score import ModelReport, Score

INK, FAINT, BAND = "#22303c", "#d7dee3", "#f4f6f8"
COLORS = ("#7fb8b4", "#0b7a75", "#22303c", "#d9822b")  # the tiers darken with size; auto stands out
SPREAD = 0.15  # of a row's height, between the dots of two models


def draw(results: Sequence[ModelReport], path: Path) -> None:
    """Writes the picture to ``path``."""
    families = list(dict.fromkeys(family for result in results for family in result.families))
    levels = sorted({level for result in results for level in result.levels})
    figure = Figure(figsize=(3.1 * (len(levels) + 1) + 1, 0.42 * len(families) + 2), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(levels) + 1, sharey=True, squeeze=False)[0]
    for axes, level in zip(panels, levels, strict=False):
        rows = [[r.cells.get((family, level)) for family in families] + [r.levels.get(level)] for r in results]
        _panel(axes, f"level {level}", rows, [result.model for result in results])
    rows = [[result.families.get(family) for family in families] + [result.overall] for result in results]
    _panel(panels[-1], "all levels", rows, [result.model for result in results])
    panels[0].set_yticks(range(len(families) + 1), [*families, "overall"])
    panels[0].get_yticklabels()[-1].set_fontweight("bold")
    panels[0].set_ylim(len(families) + 0.6, -0.6)  # the first family on top
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(results), frameon=False, fontsize=9)
    asked = max(result.overall.asked for result in results)
    figure.suptitle(f"Right answers, % of {asked:,} questions", fontsize=11, color=INK, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _panel(axes: Axes, title: str, rows: Sequence[Sequence[Score | None]], models: Sequence[str]) -> None:
    """``rows`` has, for each model, a score per family and the overall one last."""
    last = len(rows[0]) - 1
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.set(xlim=(-4, 104))
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for row in range(0, last, 2):
        axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
    axes.axhline(last - 0.5, color=INK, linewidth=0.8)
    for place, (model, row_of_scores) in enumerate(zip(models, rows, strict=True)):
        offset = SPREAD * (place - (len(models) - 1) / 2)
        points = [(100 * s.share, y + offset) for y, s in enumerate(row_of_scores) if s is not None and s.asked]
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=26,
            color=COLORS[place % len(COLORS)],
            label=model,
            zorder=3,
            clip_on=False,
        )
