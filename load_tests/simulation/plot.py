"""Runs as a picture: capacity over time against what the work needs, and attainment against GPU-hours."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from load_tests.simulation.measures import Measures

INK, FAINT = "#22303c", "#d7dee3"
COLORS = {
    "manta": "#0b7a75",
    "oracle": "#22303c",
    "serve": "#d9822b",
    "keda": "#8e5bb5",
    "kpa": "#c2413b",
    "planner": "#3d7dca",
}
MAX_POINTS = 2_000  # of a line


@dataclass(frozen=True, slots=True)
class Run:
    """A run to draw. ``series`` is (instant in seconds, replicas that hold GPUs, replicas that serve)."""

    measures: Measures
    series: Sequence[tuple[float, int, int]]


def draw(title: str, runs: Sequence[Run], busy: NDArray[np.float64], width: float, duration: float) -> Figure:
    """Returns the figure: a panel of each run's capacity, over ``busy`` replicas by ``width`` seconds; the Pareto
    front last."""
    figure = Figure(figsize=(9.0, 2.0 * len(runs) + 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(len(runs) + 1, 1, height_ratios=[1.0] * len(runs) + [1.8], squeeze=False)[:, 0]
    times = np.arange(len(busy)) * width / 60
    for run, axes in zip(runs, panels[:-1], strict=True):
        _capacity(axes, run, times, busy, duration)
    panels[len(runs) - 1].set_xlabel("minutes")
    _pareto(panels[-1], [run.measures for run in runs])
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    return figure


def write(figure: Figure, path: Path, text: str) -> None:
    """Writes the figure to ``path``: a picture, or with the suffix .html a page that also has the table ``text``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".html":
        figure.savefig(path)
        return
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    encoded = base64.b64encode(picture.getvalue()).decode()
    path.write_text(
        '<!doctype html><meta charset="utf-8"><title>Simulation</title>'
        f'<pre>{html.escape(text)}</pre><img alt="capacity and need" src="data:image/svg+xml;base64,{encoded}">\n',
        encoding="utf-8",
    )


def _capacity(axes: Axes, run: Run, times: NDArray[np.float64], busy: NDArray[np.float64], duration: float) -> None:
    color = COLORS.get(run.measures.policy, "#777777")
    within = [each for each in run.series if each[0] <= duration]
    thin = within[:: max(len(within) // MAX_POINTS, 1)]
    instants = [each[0] / 60 for each in thin] + [duration / 60]
    for place, style in ((1, "-"), (2, ":")):
        values = [each[place] for each in thin]
        axes.step(instants, [*values, values[-1]], where="post", color=color, linestyle=style, linewidth=1.2)
    ends = np.append(times, duration / 60)
    axes.fill_between(ends, np.append(busy, busy[-1]), step="post", color=FAINT)
    attained, hours = run.measures.attainment, run.measures.gpu_hours
    axes.set_title(
        f"{run.measures.policy}: {attained:.2%} in time, {hours:.1f} GPU-hours   (line: holds GPUs, dots: serves, "
        "grey: kept busy)",
        fontsize=8,
        color=INK,
        loc="left",
    )
    axes.set_ylabel("replicas", fontsize=8)
    axes.set_ylim(bottom=0)
    _frame(axes)


def _pareto(axes: Axes, runs: Sequence[Measures]) -> None:
    for run in runs:
        missed = max(100 * (1 - run.attainment), 0.01)
        axes.scatter(run.gpu_hours, missed, color=COLORS.get(run.policy, "#777777"), s=36, zorder=3)
        axes.annotate(run.policy, (run.gpu_hours, missed), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.axhline(1.0, color=INK, linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set_xlabel("GPU-hours (left is cheaper)")
    axes.set_ylabel("not in time, % (low is better)", fontsize=8)
    _frame(axes)


def _frame(axes: Axes) -> None:
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
