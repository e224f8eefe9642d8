"""Trains the first model of a fold: MiniLM with its head, from the weights of an artefact on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deployments.models.training.safety import artefact
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.folds.worst import with_worst_windows
from deployments.models.training.safety.loop import Recipe, item, train
from deployments.models.training.safety.windows import WordPieces

LEARNING_RATE: Final = 8e-5
HEAD_LEARNING_RATE: Final = 5e-4
"""Two thirds and one half of those of a training from the base, since the weights know most of the mix."""


def train_first(examples: Sequence[Example], start: Path, folder: Path, minutes: float, seed: int) -> None:
    """Continues the training of the artefact in ``start`` on ``examples``, and writes the weights to ``folder``.

    ``minutes`` are processor time. Raises OSError.
    """
    model = artefact.load(start)
    ids = WordPieces(start / "vocab.txt")([example.text for example in examples])
    items = with_worst_windows(model, [item(each, pieces) for each, pieces in zip(examples, ids, strict=True)])
    print(f"{len(items):,} texts, {sum(map(len, ids)):,} word pieces", flush=True)
    recipe = Recipe(
        minutes=minutes,
        learning_rate=LEARNING_RATE,
        head_learning_rate=HEAD_LEARNING_RATE,
        seed=seed,
        bfloat16=True,
    )
    train(model, items, recipe, folder)
    artefact.write_weights(model, folder)
