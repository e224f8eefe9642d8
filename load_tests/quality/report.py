"""A run for a terminal, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from load_tests.quality.outcome import Outcome
from load_tests.quality.score import ModelReport, Score
from load_tests.quality.set_run import SetRun

EXAMPLES = 5  # of failures, for each model
EMPTY = Score(0, 0)


def table(report: ModelReport) -> str:
    """One model: family by level, then what the answers cost."""
    width = max(16, *(len(family) + 2 for family in report.families))
    heads = [*(f"level {level}" for level in report.levels), "all levels"]
    lines = ["", f"{report.model:{width}}" + "".join(f"{head:>18}" for head in heads)]
    for family, whole in report.families.items():
        cells = [report.cells.get((family, level), EMPTY) for level in report.levels]
        lines.append(f"{family:{width}}" + "".join(map(_cell, [*cells, whole])))
    lines.append(f"{'overall':{width}}" + "".join(map(_cell, [*report.levels.values(), report.overall])))
    lines += [f"  {name:{width - 2}}{value}" for name, value in _figures(report)]
    return "\n".join(lines)


def summary(name: str, reports: Sequence[ModelReport]) -> str:
    """The set called ``name``: a row per model, with its share of right answers."""
    lines = ["", f"{name:<16}{'right':>18}{'95 % interval':>20}{'tokens of answers':>20}{'failed':>8}"]
    for report in reports:
        low, high = report.overall.interval
        interval = f"{100 * low:.1f} to {100 * high:.1f} %"
        tokens, failed = f"{report.completion_tokens:,}", f"{len(report.failures):,}"
        lines.append(f"{report.model:<16}{_cell(report.overall)}{interval:>20}{tokens:>20}{failed:>8}")
    return "\n".join(lines)


def by_part(title: str, models: Mapping[str, Mapping[str, Score]]) -> str:
    """A row per part of a set, a column per model. ``models`` has the scores of each part by model."""
    parts = list(dict.fromkeys(part for scores in models.values() for part in scores))
    width = max(len(title), *map(len, parts)) + 2
    lines = ["", f"{title:<{width}}" + "".join(f"{model:>18}" for model in models)]
    lines += [
        f"{part:<{width}}" + "".join(_cell(scores.get(part, EMPTY)) for scores in models.values()) for part in parts
    ]
    return "\n".join(lines)


def failures(reports: Iterable[ModelReport]) -> Iterator[str]:
    """A line for each model with requests that failed, and the first few of them."""
    for report in reports:
        if report.failures:
            yield f"{report.model}: FAILED {len(report.failures):,} requests, which count as wrong"
        for outcome in report.failures[:EXAMPLES]:
            yield f"  {outcome.item.id}: {outcome.reply.problem}"


def set_json(run: SetRun, reports: Iterable[ModelReport]) -> dict[str, Any]:
    """Everything about one set, down to each reply."""
    return {
        "file": str(run.questions.path),
        "sha256": run.questions.sha256,
        "items": len(run.questions.items),
        "max_tokens": run.max_tokens,
        "models": {report.model: _model(report) for report in reports},
        "rows": [_row(outcome) for outcome in run.outcomes],
    }


def score_json(score: Score) -> dict[str, float | int]:
    """A score's share and what it was counted from."""
    return {"share": score.share, "right": score.right, "asked": score.asked}


def _figures(report: ModelReport) -> Iterator[tuple[str, str]]:
    low, high = report.overall.interval
    yield "95 % interval", f"{100 * low:.1f} to {100 * high:.1f} %"
    yield "tokens", f"{report.prompt_tokens:,} of prompts, {report.completion_tokens:,} of answers"
    if set(report.tiers) - {report.model}:
        yield "answered by", ", ".join(f"{tier} {count:,}" for tier, count in report.tiers.items())
    if report.compute is None:
        yield "compute", "unknown: no size for a tier that answered"
    else:
        yield "compute", f"{report.compute / 1e9:,.1f} · 10⁹ parameters × tokens"


def _cell(score: Score) -> str:
    share = "-" if math.isnan(score.share) else f"{100 * score.share:.1f} %"
    count = f"{score.right}/{score.asked}"
    return f"{share:>9} {count:>8}"


def _model(report: ModelReport) -> dict[str, Any]:
    return {
        "overall": score_json(report.overall),
        "families": {family: score_json(score) for family, score in report.families.items()},
        "levels": {str(level): score_json(score) for level, score in report.levels.items()},
        "cells": {f"{family} {level}": score_json(score) for (family, level), score in report.cells.items()},
        "prompt_tokens": report.prompt_tokens,
        "completion_tokens": report.completion_tokens,
        "tiers": report.tiers,
        "compute": report.compute,
        "failed": len(report.failures),
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    item, reply = outcome.item, outcome.reply
    return {
        "model": outcome.model,
        "id": item.id,
        "family": item.family,
        "level": item.level,
        "right": outcome.right,
        **item.notes(reply.text),
        "reply": reply.text,
        "tier": reply.tier,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "problem": reply.problem,
    }
