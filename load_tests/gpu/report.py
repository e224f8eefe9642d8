"""Records as JSON lines, as one file, as tables in markdown, and as a plot of what part of the limits is reached."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from load_tests.gpu.figure import Figure, Record


def append(path: Path, record: Record) -> None:
    """Adds a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def read(path: Path) -> list[Record]:
    """All records of a file of lines, none if there is no file. A line that was cut off ends them."""
    found: list[Record] = []
    if not path.exists():
        return found
    for line in path.read_text("utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            break
        found.append(Record(**{**values, "figures": tuple(Figure(**each) for each in values["figures"])}))
    return found


def limits_of(records: Sequence[Record]) -> dict[str, float]:
    """What the section of that name measured."""
    figures = [each for record in records if record.section == "limits" for each in record.figures]
    return {each.name: each.value for each in figures if each.name in ("copy", "matmul")}


def line(figure: Figure) -> str:
    """A figure as it is printed."""
    share = "" if figure.share is None else f"{figure.share:7.1%} of {figure.of}"
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.good]
    return f"  {figure.name:<46}{figure.value:>14.6g} {figure.unit:<10}{share:<19}{verdict:<8}{figure.note}"


def write(directory: Path, records: Sequence[Record], about: Mapping[str, object]) -> None:
    """``results.json``, ``results.md``, and ``results.png`` where matplotlib is there."""
    whole = {"about": dict(about), "records": [asdict(record) for record in records]}
    (directory / "results.json").write_text(json.dumps(whole, indent=1), "utf-8")
    (directory / "results.md").write_text("\n".join(_markdown(records, about)) + "\n", "utf-8")
    _plot(directory / "results.png", records)


def _markdown(records: Sequence[Record], about: Mapping[str, object]) -> list[str]:
    lines = ["# Measured on one card", "", *(f"- {key}: {value}" for key, value in about.items())]
    missed = [each for record in records for each in record.figures if each.good is False]
    lines += [f"- targets missed: {len(missed)}", f"- cases failed: {sum(bool(record.error) for record in records)}"]
    for section in dict.fromkeys(record.section for record in records):
        lines += ["", f"## {section}", "", "| case | figure | value | unit | share | target | met | note |"]
        lines.append("|---|---|---:|---|---:|---|---|---|")
        for record in (each for each in records if each.section == section):
            lines += [_row(record.case, figure) for figure in record.figures]
            if record.error:
                lines.append(f"| {record.case} | failed | | | | | | {_cell(record.error)} |")
    return lines


def _row(case: str, figure: Figure) -> str:
    share = "" if figure.share is None else f"{figure.share:.1%} of {figure.of}"
    met = {None: "", True: "yes", False: "no"}[figure.good]
    values = (case, figure.name, f"{figure.value:.6g}", figure.unit, share, figure.target, met, _cell(figure.note))
    return "| " + " | ".join(values) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:400]


def _plot(path: Path, records: Sequence[Record]) -> None:
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        return
    shown = [
        (each.name, each.share) for record in records for each in record.figures
        if each.share is not None and record.section in ("kernels", "engine")
    ]  # fmt: skip
    if not shown:
        return
    canvas = Canvas(figsize=(9, 1 + 0.22 * len(shown)), layout="constrained")
    axes = canvas.subplots()
    axes.barh(range(len(shown)), [share for _, share in shown], color="tab:blue")
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("part of the limit measured in the same run")
    axes.axvline(1, color="black", linewidth=0.8)
    canvas.savefig(path, dpi=120)
