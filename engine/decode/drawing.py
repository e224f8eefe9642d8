"""The tokens that a step ends with: one of each sequence, or the first ones of all its branches."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from engine.decode.logprobs import LogprobRecorder, Scored
from engine.decode.sampling import Draw, constrain, draw_tokens
from engine.result import StepResult
from engine.scheduler.plan import Chunk


class Drawn(NamedTuple):
    """A token, and how probable it was if that is asked."""

    token: int
    scored: Scored | None


def draw_all(result: StepResult) -> list[list[Drawn] | Exception]:
    """For each sampled chunk its sequence's next token, or why there is none. Where branches begin, the first token of
    each follows. After a draft there are as many as it guessed right, and the one that is drawn after them.

    Branches draw from one row, which is constrained once. Changes the logits of ``result``.
    """
    heads = [chunk.sequence.draw(ahead=row) for chunk in result.sampled for row in range(chunk.sampled)]
    recorder = LogprobRecorder(result.logits, heads)
    faults = constrain(result.logits, heads)
    recorder.constrained(result.logits)
    rows: list[int] = []
    draws: list[Draw] = []
    first = 0
    for chunk in result.sampled:
        sequence = chunk.sequence
        rows += [first] * sequence.branches + list(range(first, first + chunk.sampled))
        draws += heads[first : first + chunk.sampled]
        draws += [sequence.draw(branch) for branch in range(1, sequence.branches + 1)]
        first += chunk.sampled
    tokens = draw_tokens(result.logits, draws, rows)
    scores = recorder.scores(rows, tokens)
    drawn = iter([Drawn(token, scores.get(place)) for place, token in enumerate(tokens)])
    outcomes: list[list[Drawn] | Exception] = []
    first = 0
    for chunk in result.sampled:
        taken = list(islice(drawn, chunk.sampled + chunk.sequence.branches))
        fault = next((faults[row] for row in range(first, first + chunk.sampled) if row in faults), None)
        outcomes.append(fault or _agreed(chunk, taken))
        first += chunk.sampled
    return outcomes


def _agreed(chunk: Chunk, drawn: list[Drawn]) -> list[Drawn]:
    """Up to the first token that was not guessed."""
    if not chunk.draft:
        return drawn
    right = 0
    while right < chunk.draft and drawn[right].token == chunk.sequence.draft[right]:
        right += 1
    return drawn[: right + 1]
