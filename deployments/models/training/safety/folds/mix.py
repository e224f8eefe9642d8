"""What a fold is trained on: the texts of one half, harmless ones beside them, and a sample of the mix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.folds.first import Round
from deployments.models.training.safety.halves import Half

REPLAYED: Final = (30_000, 8_000)
"""Texts of the mix in each round of the first model, so that what it was trained on before is not forgotten."""

REPLAYED_STATES: Final = 14_000
"""The same for the second model, which needs the states of each."""

LEARNING_RATES: Final = ((8e-5, 5e-4), (5e-5, 3e-4))
"""Of the encoder and the head, by round. A training from the base has 1.2e-4 and 1e-3."""


def rounds_of(
    half: Half,
    texts: Sequence[Example],
    mix: Sequence[Example],
    calm: Sequence[Example],
    minutes: Sequence[float],
    seed: int,
) -> list[Round]:
    """Returns both rounds of the first model. The first has ``texts``, which are of ``half``, as often as it says. In
    the second each is there once, and with them all ``calm`` texts."""
    repeated = [example for example in texts for _ in range(half.copies[example.source])]
    examples = (
        [*repeated, *replay(mix, REPLAYED[0], seed)],
        [*texts, *replay(mix, REPLAYED[1], seed + 1), *calm],
    )
    return [Round(each, time, *rates) for each, time, rates in zip(examples, minutes, LEARNING_RATES, strict=True)]


def replay(mix: Sequence[Example], number: int, seed: int) -> list[Example]:
    """Returns at most ``number`` examples of ``mix``."""
    return random.Random(f"replay {seed}").sample(list(mix), min(number, len(mix)))
