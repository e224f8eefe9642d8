"""Whole answers, from the deltas of a request. Imports no torch, as api.py does not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from engine.api import FAILURE_REASONS, Delta, EngineError, FinishReason, SamplingParams, TokenLogprobs, Usage


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer, as the offline API gives it. The token that ended it is in ``token_ids`` but not in ``text``."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    error: str | None = None  # only with FinishReason.ERROR
    logprobs: tuple[TokenLogprobs, ...] | None = None

    choice: int = 0
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None  # the same for all choices
    score: float | None = None  # of a beam search: sum of log probabilities over (tokens ** length_penalty)

    @property
    def mean_logprob(self) -> float:
        """Of its tokens, as far as they were recorded; what ``best_of`` goes by."""
        told = self.logprobs or ()
        return sum(one.chosen.logprob for one in told) / len(told) if told else -math.inf

    @classmethod
    def of(cls, deltas: Sequence[Delta], usage: Usage) -> Self:
        """All ``deltas`` of one choice together, ``usage`` being its request's. Raises EngineError without an end."""
        last = deltas[-1]
        if last.finish_reason is None:
            raise EngineError(f"request {last.request_id} has no end")
        told = [delta.logprobs for delta in deltas if delta.logprobs is not None]
        return cls(
            text="".join(delta.text for delta in deltas),
            token_ids=tuple(token for delta in deltas for token in delta.token_ids),
            finish_reason=last.finish_reason,
            usage=usage,
            error=last.error,
            logprobs=tuple(one for each in told for one in each) if told else None,
            choice=last.choice,
            score=last.score,
        )


def completions(deltas: Sequence[Delta], params: SamplingParams) -> list[Completion]:
    """The ``n`` choices of a request that has ended, by their numbers; of ``best_of`` the best, best first. A request
    that broke has one. Raises EngineError without an end."""
    last = deltas[-1]
    if not last.last:
        raise EngineError(f"request {last.request_id} has no end")
    usage = last.usage or Usage(0, 0, 0)
    if last.finish_reason in FAILURE_REASONS:
        return [Completion.of([delta for delta in deltas if delta.choice == last.choice], usage)]
    by_choice: defaultdict[int, list[Delta]] = defaultdict(list)
    for delta in deltas:
        by_choice[delta.choice].append(delta)
    of_prompt = next((delta.prompt_logprobs for delta in deltas if delta.prompt_logprobs is not None), None)
    found = [Completion.of(parts, usage) for _, parts in sorted(by_choice.items())]
    if params.choices > params.n:
        found = sorted(found, key=lambda one: -one.mean_logprob)[: params.n]
    told = params.logprobs is not None
    return [replace(one, logprobs=one.logprobs if told else None, prompt_logprobs=of_prompt) for one in found]
