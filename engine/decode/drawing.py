"""The tokens that a step ends with: one of each sequence, or the first ones of all its branches."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from engine.decode.logprobs import LogprobRecorder, Scored
from engine.decode.sampling import constrain, draw_tokens
from engine.result import StepResult


class Drawn(NamedTuple):
    """A token, and how probable it was if that is asked."""

    token: int
    scored: Scored | None


def draw_all(result: StepResult) -> list[list[Drawn] | Exception]:
    """For each sampled chunk its sequence's next token and the first tokens of its branches, or why there is none.

    Branches draw from one row, which is constrained once. Changes the logits of ``result``.
    """
    sequences = [chunk.sequence for chunk in result.sampled]
    heads = [sequence.draw() for sequence in sequences]
    recorder = LogprobRecorder(result.logits, heads)
    faults = constrain(result.logits, heads)
    recorder.constrained(result.logits)
    rows = [row for row, sequence in enumerate(sequences) for _ in range(sequence.branches + 1)]
    draws = [sequence.draw(branch) for sequence in sequences for branch in range(sequence.branches + 1)]
    tokens = draw_tokens(result.logits, draws, rows)
    scores = recorder.scores(rows, tokens)
    drawn = iter([Drawn(token, scores.get(place)) for place, token in enumerate(tokens)])
    taken = [list(islice(drawn, sequence.branches + 1)) for sequence in sequences]
    return [faults.get(row) or each for row, each in enumerate(taken)]
