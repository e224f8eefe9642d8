"""The tokens that a step ends with: one of each sequence, or the first ones of all its branches."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from engine.decode.logprobs import LogprobRecorder, Scored
from engine.decode.sampling import sample
from engine.result import StepResult


class Choice(NamedTuple):
    """A token that was drawn, and how probable it was if that is asked."""

    token: int
    scored: Scored | None


def choose(result: StepResult) -> list[list[Choice] | Exception]:
    """For each sampled chunk its sequence's next token and the first tokens of its branches, or why there is none."""
    sequences = [chunk.sequence for chunk in result.sampled]
    draws = [sequence.draw(branch) for sequence in sequences for branch in range(sequence.branches + 1)]
    logits = result.logits
    if len(draws) > len(sequences):
        logits = logits[[row for row, sequence in enumerate(sequences) for _ in range(sequence.branches + 1)]]
    recorder = LogprobRecorder(logits, draws)
    tokens = sample(logits, draws)
    scores = recorder.scores(tokens)
    drawn = iter([t if isinstance(t, Exception) else Choice(t, scores.get(row)) for row, t in enumerate(tokens)])
    return [_together(list(islice(drawn, sequence.branches + 1))) for sequence in sequences]


def _together(drawn: list[Choice | Exception]) -> list[Choice] | Exception:
    """A request whose distribution is broken has no choices."""
    chosen = [each for each in drawn if not isinstance(each, Exception)]
    return chosen if len(chosen) == len(drawn) else next(each for each in drawn if isinstance(each, Exception))
