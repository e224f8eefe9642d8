"""A run as a picture: when first tokens came, how evenly the others, and how much over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from load_tests.generator.answer import Answer
from load_tests.generator.report import Report, gaps, throughput, ttft

INK, ACCENT, FAINT = "#22303c", "#0b7a75", "#d7dee3"


def draw(answers: Sequence[Answer], report: Report, start: float, title: str, path: Path) -> None:
    """Writes the picture of a run that began at ``start`` to ``path``."""
    good = [answer for answer in answers if answer.problem is None]
    figure = Figure(figsize=(13, 4), dpi=130, layout="constrained")
    first, between, over_time = figure.subplots(1, 3)
    _distribution(first, [ttft(answer) for answer in good], "time to first token, ms", report.slo_ttft_s)
    _distribution(between, list(gaps(good)), "between frames, ms", report.slo_itl_s)
    _rate(over_time, good, report, start)
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _distribution(axes: Axes, values: list[float], label: str, limit: float) -> None:
    _plain_frame(axes)
    ordered = sorted(1000 * value for value in values)
    if ordered:
        shares = [(place + 1) / len(ordered) for place in range(len(ordered))]
        axes.step(ordered, shares, where="post", color=ACCENT, linewidth=1.8)
    if ordered and ordered[-1] > 300 * limit:  # a limit far off the scale would flatten the curve
        axes.axvline(1000 * limit, color=INK, linewidth=0.8, linestyle=":")
    for share in (0.5, 0.9, 0.99):
        axes.axhline(share, color=FAINT, linewidth=0.8, zorder=0)
    axes.set(xlabel=label, ylabel="share of all", ylim=(0, 1.02))
    axes.set_yticks([0, 0.5, 0.9, 0.99], ["0", "p50", "p90", "p99"])


def _rate(axes: Axes, good: Sequence[Answer], report: Report, start: float) -> None:
    _plain_frame(axes)
    width = max(report.seconds / 60, 0.1)
    rates = throughput(good, start, report.seconds, width)
    times = [width * (place + 0.5) for place in range(len(rates))]
    axes.fill_between(times, rates, color=ACCENT, alpha=0.15, linewidth=0)
    axes.plot(times, rates, color=ACCENT, linewidth=1.8)
    axes.axhline(report.tokens_per_s, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="seconds", ylabel="tokens/s", xlim=(0, report.seconds), ylim=(0, None))


def _plain_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
