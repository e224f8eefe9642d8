"""The tokens that a step ends with: one of each sequence, or the first ones of all its branches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from engine.decode.beams import Candidates, candidates, no_candidates, normalise
from engine.decode.logprobs import LogprobRecorder, Scored
from engine.decode.sampling import Draw, Faults, can_be_checked, check, constrain, draw_tokens
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult


class Drawn(NamedTuple):
    """A token, and how probable it was if that is asked."""

    token: int
    scored: Scored | None


SampleOutcome = list[Drawn] | Candidates | Exception
"""What a sequence may go on with, or why it cannot."""


def draw_all(result: StepResult) -> list[SampleOutcome]:
    """For each sampled chunk its sequence's next token, or why there is none. Where branches begin, the first token of
    each follows. After a draft there are as many as it guessed right, and the one that is drawn after them. A beam of a
    search gets its candidates.

    Branches draw from one row, which is constrained once. Changes the logits of ``result``.
    """
    if result.tokens is not None:
        return _already_drawn(result.sampled, result.tokens)
    heads = [chunk.sequence.draw(ahead=row) for chunk in result.sampled for row in range(chunk.sampled)]
    recorder = LogprobRecorder(result.logits, heads)
    searching = [row for row, head in enumerate(heads) if head.candidates]
    normalise(result.logits, searching)  # rules change log probabilities there, as in transformers
    postponed = {row for row, head in enumerate(heads) if can_be_checked(head)}
    constrained = constrain(result.logits, heads, postponed)
    recorder.constrained(result.logits)
    found = _search(result.logits, heads, searching, recorder, constrained)
    rows: list[int] = []
    draws: list[Draw] = []
    first = 0
    for chunk in result.sampled:
        sequence = chunk.sequence
        if sequence.candidates:
            first += chunk.sampled
            continue
        rows += [first] * sequence.branches + list(range(first, first + chunk.sampled))
        draws += heads[first : first + chunk.sampled]
        draws += [sequence.draw(branch) for branch in range(1, sequence.branches + 1)]
        first += chunk.sampled
    tokens = draw_tokens(result.logits, draws, rows)
    faults = constrained.by_row  # not before: the device would have waited while draws were prepared
    check(result.logits, draws, rows, tokens, postponed, faults)
    scores = recorder.scores(rows, tokens)
    drawn = iter([Drawn(token, scores.get(place)) for place, token in enumerate(tokens)])
    outcomes: list[SampleOutcome] = []
    first = 0
    for chunk in result.sampled:
        fault = next((faults[row] for row in range(first, first + chunk.sampled) if row in faults), None)
        if first in found:
            outcomes.append(fault if isinstance(fault, FloatingPointError) else found[first])
        else:
            taken = list(islice(drawn, chunk.sampled + chunk.sequence.branches))
            outcomes.append(fault or _accepted(chunk, taken))
        first += chunk.sampled
    return outcomes


def _search(
    logits: Tensor,
    heads: Sequence[Draw],
    rows: Sequence[int],
    recorder: LogprobRecorder,
    faults: Faults,
) -> dict[int, Candidates]:
    """The candidates of the rows of beams; none where rules or a grammar leave none, which ends that beam alone."""
    if not rows:
        return {}
    scorers = [recorder.scorer(row) for row in rows]
    found = candidates(logits[torch.tensor(rows, device=logits.device)], [heads[row] for row in rows], scorers)
    return {row: no_candidates() if row in faults.by_row else some for row, some in zip(rows, found, strict=True)}


def _already_drawn(sampled: Sequence[Chunk], tokens: Sequence[int]) -> list[SampleOutcome]:
    drawn = iter([Drawn(token, None) for token in tokens])
    return [_accepted(chunk, list(islice(drawn, chunk.sampled))) for chunk in sampled]


def _accepted(chunk: Chunk, drawn: list[Drawn]) -> list[Drawn]:
    """Up to the first token that was not guessed."""
    if not chunk.draft:
        return drawn
    accepted = 0
    while accepted < chunk.draft and drawn[accepted].token == chunk.sequence.draft[accepted]:
        accepted += 1
    return drawn[: accepted + 1]
