"""Goodput and waits against the offered load, with and without admission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from load_tests.overload.traffic import CLASSES
from load_tests.overload.trial import Figures

INK, FAINT = "#22303c", "#d7dee3"
COLORS = {"with admission": "#0b7a75", "without": "#d9822b"}


def draw(runs: Mapping[str, Sequence[tuple[float, Figures]]], path: Path) -> None:
    """Writes the picture of ``runs``: for each name, the figures by the offered load in multiples of the capacity."""
    figure = Figure(figsize=(9, 3.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    interactive = CLASSES[0]
    for name, rows in runs.items():
        times = [multiple for multiple, _ in rows]
        left.plot(times, [each.goodput for _, each in rows], color=COLORS[name], marker="o", label=name)
        waits = [each.ttft_p99_by_class[interactive.name] or float("nan") for _, each in rows]
        right.plot(times, waits, color=COLORS[name], marker="o", label=name)
    right.axhline(interactive.objective_s, color=INK, linewidth=0.8, linestyle=":")
    right.set_yscale("log")
    left.set(xlabel="offered load, x capacity", ylabel="answers in time per second", ylim=(0, None))
    right.set(xlabel="offered load, x capacity", ylabel="interactive P99 TTFT, s")
    for axes in (left, right):
        axes.grid(color=FAINT, linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    left.legend(frameon=False)
    figure.suptitle("Overload, open loop, mixed classes and lengths", fontsize=11, color=INK, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
