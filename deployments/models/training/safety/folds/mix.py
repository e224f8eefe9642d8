"""What a fold is trained on: the texts of one half, several times each, and a sample of the mix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.halves import Half
from deployments.models.training.safety.written import SOURCE

REPLAYED: Final = 18_000
"""Texts of the mix that the first model reads, so that what it was trained on before is not forgotten."""

REPLAYED_STATES: Final = 14_000
"""The same for the second model, which needs the states of each."""


def fold_mix(half: Half, texts: Sequence[Example], mix: Sequence[Example], replayed: int, seed: int) -> list[Example]:
    """Returns ``texts``, which are of ``half``, as often as it says, and at most ``replayed`` examples of ``mix``."""
    repeated = [example for example in texts for _ in range(half.copies[example.source])]
    return [*repeated, *replay(mix, replayed, seed)]


def without_written_attacks(mix: Sequence[Example]) -> list[Example]:
    """Returns the mix of the first model. With the written attacks in it, MiniLM takes rules for the form of an answer
    for attacks: of IFEval, which that fold had not read, 7.5 % were flagged in place of 1.5 %."""
    return [each for each in mix if not each.source.startswith(SOURCE) or each.source == f"{SOURCE}harmless"]


def replay(mix: Sequence[Example], number: int, seed: int) -> list[Example]:
    """Returns at most ``number`` examples of ``mix``."""
    return random.Random(f"replay {seed}").sample(list(mix), min(number, len(mix)))
