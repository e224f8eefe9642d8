"""What a run leaves behind: tables on the terminal, and the files that were asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.quality.baseline import Baseline, dump, make_baseline, read_baseline
from load_tests.quality.comparison import fell
from load_tests.quality.ifeval.report import ifeval_json, ifeval_tables
from load_tests.quality.options import IFEVAL, TASKS, QualityOptions
from load_tests.quality.plot import draw
from load_tests.quality.report import by_part, failures, set_json, summary, table
from load_tests.quality.score import ModelReport, reports
from load_tests.quality.set_run import SetRun


def publish(
    options: QualityOptions, runs: Sequence[SetRun], sizes: Mapping[str, int], baseline: Baseline | None
) -> bool:
    """Prints and writes what was asked for. Returns whether a tier fell below the baseline. ``sizes`` are the
    parameters of each tier, as far as known."""
    results = {run.name: reports(run.outcomes, sizes) for run in runs}
    for run in runs:
        for text in tables(run, results[run.name]):
            print(text)
    if options.json is not None:
        document = {
            "parameters": dict(sizes),
            "sets": {run.name: _set_json(run, results[run.name]) for run in runs},
        }
        _write(options.json, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if options.plot is not None:
        draw(results[TASKS], options.plot)
    if options.write_baseline is not None:
        _write_baseline(options.write_baseline, runs)
    return baseline is not None and fell(baseline, runs)


def tables(run: SetRun, results: Sequence[ModelReport]) -> Iterator[str]:
    """One set: the details that it has, then a row per model."""
    if run.name == TASKS:
        yield from map(table, results)
        yield summary(run.name, results)
    elif run.name == IFEVAL:
        yield from ifeval_tables(run)
    else:
        yield by_part(f"{run.name}, by topic", {result.model: result.families for result in results})
        yield summary(run.name, results)
    yield from failures(results)


def _set_json(run: SetRun, results: Sequence[ModelReport]) -> dict[str, Any]:
    document = set_json(run, results)
    return document | {"instructions": ifeval_json(run)} if run.name == IFEVAL else document


def _write_baseline(path: Path, runs: Sequence[SetRun]) -> None:
    """Writes the baseline, or prints why there is none: what was measured is worth showing all the same."""
    try:
        earlier = read_baseline(path) if path.exists() else None
        _write(path, dump(make_baseline(runs, earlier)))
        print(f"\nbaseline written to {path}")
    except ValueError as error:
        print(f"\nno baseline written: {error}")


def _write(path: Path, text: str) -> None:
    """Writes a file, and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
