"""Trains the first model of a fold: MiniLM with its head, from the weights of an artefact on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.safety import artefact
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.loop import Recipe, item, train
from deployments.models.training.safety.windows import WordPieces


@dataclass(frozen=True, slots=True)
class Round:
    """``minutes`` are of the processor. The learning rates are peaks; in each round they rise and fall to zero."""

    examples: Sequence[Example]
    minutes: float
    learning_rate: float
    head_learning_rate: float


def train_first(rounds: Sequence[Round], start: Path, folder: Path, seed: int) -> None:
    """Trains the weights in ``start`` in ``rounds``, and writes them to ``folder``. Raises OSError."""
    model = artefact.load(start)
    cut = WordPieces(start / "vocab.txt")
    for each in rounds:
        ids = cut([example.text for example in each.examples])
        items = [item(example, pieces) for example, pieces in zip(each.examples, ids, strict=True)]
        print(f"{len(items):,} texts, {sum(map(len, ids)):,} word pieces", flush=True)
        recipe = Recipe(
            minutes=each.minutes,
            learning_rate=each.learning_rate,
            head_learning_rate=each.head_learning_rate,
            seed=seed,
            bfloat16=True,
        )
        train(model, items, recipe, folder)
    artefact.write_weights(model, folder)
