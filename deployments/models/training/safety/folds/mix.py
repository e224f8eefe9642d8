"""What a fold is trained on: the texts of one half, several times each, written texts, and a sample of the mix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.halves import Half
from deployments.models.training.safety.written import SOURCE

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
    written = [example for example in mix if example.source.startswith(SOURCE)]
    others = [example for example in mix if not example.source.startswith(SOURCE)]
    return [*written, *random.Random(f"replay {seed}").sample(others, min(number, len(others)))]
