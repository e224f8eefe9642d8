"""What a step comes back with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from engine.scheduler.step_plan import Chunk


class StepResult(NamedTuple):
    """``sampled``: the chunks after which a token is to be sampled, and their ``logits`` [rows, vocab] float32 in the
    same order, one row each and one more for each token of its draft. ``unsound``: the chunks in which a number has
    overflowed; what they wrote to the cache must not be read. ``scored``: the chunks some of whose rows are to be
    scored, with those rows' logits. ``tokens``: what was drawn after each row of the sampled chunks, if the runner has
    done that; then there are no logits."""

    sampled: list[Chunk]
    logits: Tensor
    unsound: list[Chunk]
    scored: Sequence[tuple[Chunk, Tensor]] = ()
    tokens: Sequence[int] | None = None

    @classmethod
    def of(cls, chunks: Sequence[Chunk], logits: Tensor, sound: Sequence[bool] | Sequence[int]) -> StepResult:
        """From the ``logits`` of ``rows_wanted(chunks)``, and whether each row of the step was ``sound``."""
        sampled = [chunk for chunk in chunks if chunk.samples]
        if not any(chunk.scored for chunk in chunks):
            return cls(sampled, logits, unsound(chunks, sound))
        scored: list[tuple[Chunk, Tensor]] = []
        last: list[int] = []
        row = 0
        for chunk in chunks:
            if chunk.scored:
                scored.append((chunk, logits[row : row + chunk.scored]))
            row += chunk.scored
            last += range(row, row + chunk.sampled)
            row += chunk.sampled
        rows = torch.tensor(last, dtype=torch.int64, device=logits.device)
        return cls(sampled, logits.index_select(0, rows), unsound(chunks, sound), scored)

    @classmethod
    def told(cls, chunks: Sequence[Chunk], tokens: Sequence[int], sound: Sequence[int]) -> StepResult:
        """From the ``tokens`` after each sampled row, negative where there is none, and whether each row of the step
        was ``sound``."""
        sampled = [chunk for chunk in chunks if chunk.samples]
        ends = pairwise(accumulate((chunk.sampled for chunk in sampled), initial=0))
        lost = [chunk for chunk, (first, end) in zip(sampled, ends, strict=True) if min(tokens[first:end]) < 0]
        bad = unsound(chunks, sound)
        return cls(sampled, torch.empty(0), bad + [chunk for chunk in lost if chunk not in bad], (), tokens)


def rows_wanted(chunks: Sequence[Chunk]) -> list[int]:
    """The rows of a step whose logits are wanted: those to be scored, and those after which tokens are sampled."""
    rows: list[int] = []
    first = 0
    for chunk in chunks:
        rows += range(first, first + chunk.scored)
        first += chunk.length
        rows += range(first - chunk.sampled, first)
    return rows


def unsound(chunks: Sequence[Chunk], sound: Sequence[bool] | Sequence[int]) -> list[Chunk]:
    """The chunks, whose rows follow each other, that have a row that is not ``sound``."""
    if all(sound):
        return []
    borders = pairwise(accumulate((chunk.length for chunk in chunks), initial=0))
    return [chunk for chunk, (first, end) in zip(chunks, borders, strict=True) if not all(sound[first:end])]
