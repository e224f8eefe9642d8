"""The comparison as a picture: accuracy against compute, and both by tolerance."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deployments.models.training.routing.sweep import Point, Setting
from load_tests.quality.curve.comparison import Curve, kept

FARTHEST = 1.2
"""Compute at the right edge. A tier that takes more is told in words: the others would be on one spot."""
INK, MUTED, FAINT, TARGET, ACCENT, WARM = "#22303c", "#7b8a96", "#d7dee3", "#e6f3f1", "#0b7a75", "#d9822b"


def draw(curve: Curve, marked: Setting | None, keep: float, spend: float, count: int, path: Path) -> None:
    """Writes the picture of ``curve`` over ``count`` items to ``path``, with the setting ``marked`` and the target:
    ``keep`` of the best tier's accuracy for ``spend`` of its compute."""
    figure = Figure(figsize=(12.5, 5.2), dpi=130, layout="constrained")
    plane, by_tolerance = figure.subplots(1, 2, width_ratios=(3, 2))
    _plane(plane, curve, marked, keep, spend)
    _by_tolerance(by_tolerance, curve, marked, keep, spend)
    figure.suptitle(
        f"Routing by forecast: right answers against compute, {count:,} held-out items",
        fontsize=11.5,
        color=INK,
        x=0.01,
        ha="left",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _plane(axes: Axes, curve: Curve, marked: Setting | None, keep: float, spend: float) -> None:
    last = curve.best
    axes.set_title("each point: all items, one way of choosing", fontsize=9.5, color=MUTED, loc="left")
    routed = [setting.point for setting in curve.settings]
    shown = [point for point in curve.tiers.values() if point.compute <= FARTHEST]
    known = [*routed, *shown, curve.heuristic, curve.oracle]
    low, high = min(100 * p.accuracy for p in known), max(100 * p.accuracy for p in known)
    room = max(high - low, 1) * 0.09
    enough = 100 * keep * curve.reference.accuracy
    axes.set(xlim=(0, 100 * FARTHEST), ylim=(low - room, high + room))
    axes.fill_between([0, 100 * spend], enough, high + room, color=TARGET, linewidth=0, zorder=0)
    axes.annotate(
        f"target: {100 * keep:.0f} % of {last}'s accuracy\nfor {100 * spend:.0f} % of its compute",
        (0, high + room),
        xytext=(6, -6),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color=ACCENT,
    )
    alone = shown
    axes.plot(*_places(alone), color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="dice between two tiers")
    axes.plot(*_places(routed), color=ACCENT, linewidth=2.2, label="router, tolerance 0 to 1", zorder=3)
    axes.scatter(*_places(alone), s=46, color=INK, zorder=4)
    beyond = {name: point for name, point in curve.tiers.items() if point.compute > FARTHEST}
    for place, (name, point) in enumerate(beyond.items()):
        told = f"{name} alone: {100 * point.accuracy:.1f} % for {100 * point.compute:,.0f} % of the compute"
        axes.text(0.98, 0.32 - 0.05 * place, told, transform=axes.transAxes, ha="right", fontsize=8.5, color=INK)
    for name, point in curve.tiers.items():
        if name in beyond:
            continue
        far = point.compute > 0.9
        _name(axes, f"{name} alone", point, INK, (0, 10) if far else (8, -13), "right" if far else "left")
    axes.scatter(*_places([curve.heuristic]), s=44, color=WARM, marker="D", zorder=4)
    _name(axes, "heuristic", curve.heuristic, WARM, (-7, 7), "right")
    axes.scatter(*_places([curve.oracle]), s=120, color=WARM, marker="*", zorder=4)
    _name(axes, "oracle", curve.oracle, WARM, (10, -3), "left")
    if marked is not None:
        axes.scatter(*_places([marked.point]), s=80, facecolor="white", edgecolor=ACCENT, linewidth=2.2, zorder=5)
        axes.annotate(
            f"tolerance {marked.tolerance:.3f}: {100 * kept(marked.point, curve.reference):.1f} % of {last}'s\n"
            f"for {100 * marked.point.compute:.0f} % of its compute",
            (100 * marked.point.compute, 100 * marked.point.accuracy),
            xytext=(14, -34) if marked.point.compute < 0.6 else (-2, -64),
            textcoords="offset points",
            ha="left" if marked.point.compute < 0.6 else "right",
            fontsize=9,
            color=ACCENT,
            fontweight="bold",
        )
    axes.set(xlabel=f"compute (tokens x parameters), % of {last} alone", ylabel="right answers, %")
    axes.legend(loc="lower right", frameon=False, fontsize=8.5, labelcolor=INK)
    _plain(axes)


def _by_tolerance(axes: Axes, curve: Curve, marked: Setting | None, keep: float, spend: float) -> None:
    tolerances = [setting.tolerance for setting in curve.settings]
    last = curve.best
    axes.set_title(f"by tolerance, % of {last} alone", fontsize=9.5, color=MUTED, loc="left")
    lines = (
        ("accuracy", [100 * kept(setting.point, curve.reference) for setting in curve.settings], keep, ACCENT),
        ("compute", [100 * setting.point.compute for setting in curve.settings], spend, INK),
    )
    for name, values, limit, color in lines:
        axes.step(tolerances, values, where="post", color=color, linewidth=1.8)
        axes.axhline(100 * limit, color=color, linewidth=0.8, linestyle=":")
        axes.annotate(
            name,
            (tolerances[-1], values[-1]),
            xytext=(-2, 6),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=color,
        )
    if marked is not None:
        axes.axvline(marked.tolerance, color=ACCENT, linewidth=0.9)
    axes.set(xlim=(0, 1), ylim=(0, 100 * FARTHEST), xlabel="tolerance")
    _plain(axes)


def _places(points: list[Point]) -> tuple[list[float], list[float]]:
    return [100 * point.compute for point in points], [100 * point.accuracy for point in points]


def _name(axes: Axes, name: str, point: Point, color: str, offset: tuple[float, float], side: str) -> None:
    axes.annotate(
        name,
        (100 * point.compute, 100 * point.accuracy),
        xytext=offset,
        textcoords="offset points",
        ha=side,
        fontsize=8.5,
        color=color,
    )


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
