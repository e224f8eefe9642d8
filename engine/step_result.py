"""``StepResult``: the result that a runner returns for one step (vLLM's ``ModelRunnerOutput``)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from engine.scheduler.step_plan import Chunk

_NO_LOGITS = torch.empty(0)


class StepResult(NamedTuple):
    """The result of one step.

    * ``sampled``: the chunks that a token is to be sampled after.
    * ``logits`` [rows, vocab] float32: for each of these chunks, in the same order, a row for each draft token and one
      more.
    * ``unsound``: the chunks with NaN or Inf in one of their rows. The KV that they wrote must not be read.
    * ``scored``: the chunks with prompt tokens to score, with the logits of these rows.
    * ``tokens``: the argmax of each row of ``logits``, if the runner has sampled greedily itself; ``logits`` is then
      empty.
    """

    sampled: list[Chunk]
    logits: Tensor
    unsound: list[Chunk]
    scored: Sequence[tuple[Chunk, Tensor]] = ()
    tokens: Sequence[int] | None = None

    @classmethod
    def of(cls, chunks: Sequence[Chunk], logits: Tensor, sound: Sequence[bool] | Sequence[int]) -> StepResult:
        """Makes the result from the ``logits`` of ``rows_wanted(chunks)``. ``sound`` says of each row of the step
        whether all its numbers were finite."""
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
        """Makes the result of a runner that has sampled greedily itself. ``tokens`` has the token of each sampled
        row, negative where no logit was finite; ``sound`` says of each row of the step whether all its numbers were
        finite."""
        sampled = [chunk for chunk in chunks if chunk.samples]
        if all(sound) and min(tokens, default=0) >= 0:
            return cls(sampled, _NO_LOGITS, [], (), tokens)
        ends = pairwise(accumulate((chunk.sampled for chunk in sampled), initial=0))
        lost = [chunk for chunk, (first, end) in zip(sampled, ends, strict=True) if min(tokens[first:end]) < 0]
        bad = unsound(chunks, sound)
        return cls(sampled, _NO_LOGITS, bad + [chunk for chunk in lost if chunk not in bad], (), tokens)


def rows_wanted(chunks: Sequence[Chunk]) -> Sequence[int]:
    """Returns the rows of a step whose logits are needed: those that score a prompt token or that a token is sampled
    after."""
    if all(chunk.length == 1 and chunk.samples for chunk in chunks):
        return range(len(chunks))  # decodes alone
    rows: list[int] = []
    first = 0
    for chunk in chunks:
        if chunk.scored:
            rows += range(first, first + chunk.scored)
        first += chunk.length
        rows += range(first - chunk.sampled, first)
    return rows


def unsound(chunks: Sequence[Chunk], sound: Sequence[bool] | Sequence[int]) -> list[Chunk]:
    """Returns the chunks that have a row that is not ``sound``. Their rows follow each other in the order of
    ``chunks``."""
    if all(sound):
        return []
    borders = pairwise(accumulate((chunk.length for chunk in chunks), initial=0))
    return [chunk for chunk, (first, end) in zip(chunks, borders, strict=True) if not all(sound[first:end])]
