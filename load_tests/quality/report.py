"""A run for a terminal, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from load_tests.quality.item import HeldOut
from load_tests.quality.outcome import Outcome
from load_tests.quality.score import ModelReport, Score

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


def as_json(
    reports: Sequence[ModelReport],
    outcomes: Sequence[Outcome],
    held_out: HeldOut,
    sizes: Mapping[str, int],
    *,
    max_tokens: int,
) -> dict[str, Any]:
    """Everything, down to each reply."""
    return {
        "heldout": {"file": str(held_out.path), "sha256": held_out.sha256, "items": len(held_out.items)},
        "max_tokens": max_tokens,
        "parameters": dict(sizes),
        "models": {report.model: _model(report) for report in reports},
        "items": [_row(outcome) for outcome in outcomes],
    }


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
    if report.failures:
        yield "FAILED", f"{len(report.failures):,} requests, which count as wrong"
    for outcome in report.failures[:EXAMPLES]:
        yield f"  {outcome.item.id}", str(outcome.reply.problem)


def _cell(score: Score) -> str:
    share = "-" if math.isnan(score.share) else f"{100 * score.share:.1f} %"
    count = f"{score.right}/{score.asked}"
    return f"{share:>9} {count:>8}"


def _model(report: ModelReport) -> dict[str, Any]:
    return {
        "overall": _score(report.overall),
        "families": {family: _score(score) for family, score in report.families.items()},
        "levels": {str(level): _score(score) for level, score in report.levels.items()},
        "cells": {f"{family} {level}": _score(score) for (family, level), score in report.cells.items()},
        "prompt_tokens": report.prompt_tokens,
        "completion_tokens": report.completion_tokens,
        "tiers": report.tiers,
        "compute": report.compute,
        "failed": len(report.failures),
    }


def _score(score: Score) -> dict[str, float | int]:
    return {"share": score.share, "right": score.right, "asked": score.asked}


def _row(outcome: Outcome) -> dict[str, Any]:
    item, reply = outcome.item, outcome.reply
    return {
        "model": outcome.model,
        "id": item.id,
        "family": item.family,
        "level": item.level,
        "right": outcome.right,
        "answer": item.answer,
        "reply": reply.text,
        "tier": reply.tier,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "problem": reply.problem,
    }
