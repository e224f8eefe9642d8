"""What a fold is trained on: the texts of one half, several times each, written texts, and a sample of the mix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.halves import Half
from deployments.models.training.safety.written import is_written

REPLAYED: Final = 30_000
"""Texts of the mix, besides the written ones, that a training of the first model reads, so that what it knew before is
not forgotten."""

REPLAYED_STATES: Final = 14_000
"""The same for the second model, which needs the states of each."""

UNLIKE_STATES: Final = 800
"""Harmless texts of other kinds (``unlike``) that the second model reads. The first one reads all of them."""


def fold_mix(half: Half, texts: Sequence[Example], mix: Sequence[Example], replayed: int, seed: int) -> list[Example]:
    """Returns ``texts``, which are of ``half``, as often as it says, and what ``replay`` returns of ``mix``."""
    repeated = [example for example in texts for _ in range(half.copies[example.source])]
    return [*repeated, *replay(mix, replayed, seed)]


def replay(mix: Sequence[Example], number: int, seed: int) -> list[Example]:
    """Returns all written texts of ``mix``, and at most ``number`` others."""
    others = [example for example in mix if not is_written(example)]
    return [*filter(is_written, mix), *random.Random(f"replay {seed}").sample(others, min(number, len(others)))]


def states_examples(
    texts: Sequence[Example], mix: Sequence[Example], unlike: Sequence[Example], seed: int
) -> list[Example]:
    """Returns what the second model is trained on, each text once: ``texts``, which are of a half, some of ``unlike``,
    and what ``replay`` returns of ``mix``."""
    once = list({each.text: each for each in mix}.values())
    others = random.Random(f"states {seed}").sample(list(unlike), min(UNLIKE_STATES, len(unlike)))
    return [*texts, *others, *replay(once, REPLAYED_STATES, seed)]
