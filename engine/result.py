"""What a step comes back with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from torch import Tensor

from engine.scheduler.plan import Chunk


class StepResult(NamedTuple):
    """``sampled``: the chunks after which a token is to be sampled, and their ``logits`` [len, vocab] float32 in the
    same order. ``unsound``: the chunks in which a number has overflowed; what they wrote to the cache must not be
    read."""

    sampled: list[Chunk]
    logits: Tensor
    unsound: list[Chunk]


def unsound(chunks: Sequence[Chunk], sound: Sequence[bool] | Sequence[int]) -> list[Chunk]:
    """The chunks, whose rows follow each other, that have a row that is not ``sound``."""
    if all(sound):
        return []
    borders = pairwise(accumulate((chunk.length for chunk in chunks), initial=0))
    return [chunk for chunk, (first, end) in zip(chunks, borders, strict=True) if not all(sound[first:end])]
