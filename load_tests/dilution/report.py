"""A run as a table and as JSON. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from load_tests.dilution.trial import Trial


@dataclass(frozen=True, slots=True)
class Cell:
    """The trials of a model, a strategy, a length and a depth; ``depth`` None: of all depths together."""

    model: str
    strategy: str
    length: int
    depth: float | None
    asked: int
    found: int
    in_prompt: int
    prompt_tokens: float  # mean
    seconds: float  # mean

    @property
    def accuracy(self) -> float:
        """The share of replies with the answer."""
        return self.found / self.asked


def cells(trials: Sequence[Trial]) -> list[Cell]:
    """Returns a cell for each model, strategy, length and depth, and one over all depths, in the order of the run."""
    groups: defaultdict[tuple[str, str, int, float | None], list[Trial]] = defaultdict(list)
    for trial in trials:
        for depth in (trial.depth, None):
            groups[trial.model, trial.strategy, trial.length, depth].append(trial)
    return [
        Cell(
            *key,
            asked=len(own),
            found=sum(trial.found for trial in own),
            in_prompt=sum(trial.in_prompt for trial in own),
            prompt_tokens=sum(trial.prompt_tokens for trial in own) / len(own),
            seconds=sum(trial.seconds for trial in own) / len(own),
        )
        for key, own in groups.items()
    ]


def table(trials: Sequence[Trial]) -> str:
    """Returns a line for each model, strategy and length: accuracy by depth, and what the prompt took."""
    found = cells(trials)
    depths = sorted({cell.depth for cell in found if cell.depth is not None})
    head = "".join(f"{depth:>7.0%}" for depth in depths)
    lines = [f"{'model':<10} {'strategy':<12} {'notes':>6} {head} {'all':>6} {'kept':>6} {'tokens':>7} {'s':>6}"]
    at = {(cell.model, cell.strategy, cell.length, cell.depth): cell for cell in found}
    for cell in found:
        if cell.depth is not None:
            continue
        row = [at.get((cell.model, cell.strategy, cell.length, depth)) for depth in depths]
        shares = "".join("      -" if each is None else f"{each.accuracy:>7.0%}" for each in row)
        lines.append(
            f"{cell.model:<10} {cell.strategy:<12} {cell.length:>6,} {shares} {cell.accuracy:>6.0%} "
            f"{cell.in_prompt / cell.asked:>6.0%} {cell.prompt_tokens:>7,.0f} {cell.seconds:>6.2f}"
        )
    return "\n".join(lines)


def document(trials: Sequence[Trial], settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the run as a JSON object: its settings, a row per cell, and every trial."""
    rows = [asdict(cell) | {"accuracy": cell.accuracy} for cell in cells(trials)]
    return {"settings": settings, "cells": rows, "trials": [asdict(trial) for trial in trials]}
