"""What a fold is trained on: the texts of one half, several times each, and a sample of the mix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.halves import Half
from deployments.models.training.safety.written import SOURCE

REPLAYED: Final = (30_000, 18_000)
"""Texts of the mix that each training of the first model reads, so that what it knew before is not forgotten."""

REPLAYED_SETTLED: Final = 9_000
"""The same for the last training of the first model."""

REPLAYED_STATES: Final = 14_000
"""The same for the second model, which needs the states of each."""


def fold_mix(half: Half, texts: Sequence[Example], mix: Sequence[Example], replayed: int, seed: int) -> list[Example]:
    """Returns ``texts``, which are of ``half``, as often as it says, and at most ``replayed`` examples of ``mix``."""
    repeated = [example for example in texts for _ in range(half.copies[example.source])]
    return [*repeated, *replay(mix, replayed, seed)]


def first_trainings(
    mix: Sequence[Example], minutes: Sequence[float]
) -> dict[str, tuple[Sequence[Example], int, float]]:
    """Returns of both trainings of the first model, by name: the mix, texts of it, and ``minutes``.

    With the written attacks MiniLM takes rules for the form of an answer for attacks: a fold that had not read IFEval
    flagged 7.5 % of it, and 1.5 % without them. Without them it flags long harmless texts. The mean does neither.
    """
    mixes = {"written": mix, "unwritten": without_written_attacks(mix)}
    return {
        name: (texts, number, time)
        for (name, texts), number, time in zip(mixes.items(), REPLAYED, minutes, strict=True)
    }


def without_written_attacks(mix: Sequence[Example]) -> list[Example]:
    """Returns the mix with no written texts but the harmless ones."""
    return [each for each in mix if not each.source.startswith(SOURCE) or each.source == f"{SOURCE}harmless"]


def replay(mix: Sequence[Example], number: int, seed: int) -> list[Example]:
    """Returns at most ``number`` examples of ``mix``."""
    return random.Random(f"replay {seed}").sample(list(mix), min(number, len(mix)))
