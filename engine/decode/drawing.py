"""Samples the tokens of a step for all its sequences: one each, one per choice after the prompt, or several with draft
tokens; and verifies draft tokens."""

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
    """A sampled token, and its log probabilities if the request wants them, else None."""

    token: int
    scored: Scored | None


SampleOutcome = list[Drawn] | Candidates | Exception
"""What sampling gives a sequence: its tokens, or the candidates of a beam, or the error that ends it. Of several tokens
the first ones are accepted draft tokens, or each is the first token of another choice."""


def draw_all(result: StepResult) -> list[SampleOutcome]:
    """Returns the outcome of sampling for each sampled chunk. That is one token, or one for each choice that starts;
    after draft tokens the accepted ones and the token drawn after them; for a beam its candidates; or an error.

    Choices that start are drawn from the same row, to which rules and grammar are applied once. Changes the logits of
    ``result`` in place.
    """
    if result.tokens is not None:
        return _already_drawn(result.sampled, result.tokens)
    heads = [chunk.sequence.draw(ahead=row) for chunk in result.sampled for row in range(chunk.sampled)]
    recorder = LogprobRecorder(result.logits, heads)
    searching = [row for row, head in enumerate(heads) if head.candidates]
    normalise(result.logits, searching)  # in a beam search rules apply to log probabilities, as in transformers
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
    faults = constrained.by_row  # after the draws are launched, because it waits for the device
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
    """Returns the candidates of beams by row. A beam has none if rules or grammar leave none, which ends that beam
    only."""
    if not rows:
        return {}
    scorers = [recorder.scorer(row) for row in rows]
    found = candidates(logits[torch.tensor(rows, device=logits.device)], [heads[row] for row in rows], scorers)
    return {row: no_candidates() if row in faults.by_row else some for row, some in zip(rows, found, strict=True)}


def _already_drawn(sampled: Sequence[Chunk], tokens: Sequence[int]) -> list[SampleOutcome]:
    """Returns the outcomes if the runner has sampled greedily itself."""
    drawn = [Drawn(token, None) for token in tokens]
    if len(drawn) == len(sampled):  # no draft tokens
        return [[one] for one in drawn]
    rest = iter(drawn)
    return [_accepted(chunk, list(islice(rest, chunk.sampled))) for chunk in sampled]


def _accepted(chunk: Chunk, drawn: list[Drawn]) -> list[Drawn]:
    """Verifies draft tokens: returns ``drawn`` up to the first token that differs from its draft token, inclusive."""
    if not chunk.draft:
        return drawn
    accepted = 0
    while accepted < chunk.draft and drawn[accepted].token == chunk.sequence.draft[accepted]:
        accepted += 1
    return drawn[: accepted + 1]
