"""Trains the first model of a fold: MiniLM with its head, from the weights of an artefact on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deployments.models.training.safety import artefact
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.loop import Recipe, item, train
from deployments.models.training.safety.windows import WordPieces

LEARNING_RATE: Final = 8e-5
HEAD_LEARNING_RATE: Final = 5e-4
"""Two thirds and one half of those of a training from the base, since the weights know most of the mix."""
SETTLED: Final = 0.5
"""The part of these rates for a last training, which changes little but for texts of new kinds."""


def train_first(
    examples: Sequence[Example], start: Path, folder: Path, minutes: float, seed: int, part: float = 1.0
) -> None:
    """Continues the training of the artefact in ``start`` on ``examples``, and writes the weights to ``folder``.

    ``minutes`` are processor time. ``part`` scales both learning rates. Raises OSError.
    """
    model = artefact.load(start)
    ids = WordPieces(start / "vocab.txt")([example.text for example in examples])
    items = [item(example, pieces) for example, pieces in zip(examples, ids, strict=True)]
    print(f"{len(items):,} texts, {sum(map(len, ids)):,} word pieces", flush=True)
    recipe = Recipe(
        minutes=minutes,
        learning_rate=part * LEARNING_RATE,
        head_learning_rate=part * HEAD_LEARNING_RATE,
        seed=seed,
        bfloat16=True,
    )
    train(model, items, recipe, folder)
    artefact.write_weights(model, folder)
