"""Complete answers, assembled from the deltas of a request. Imports no torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from engine.api import FAILURE_REASONS, Delta, EngineError, FinishReason, SamplingParams, TokenLogprobs, Usage


@dataclass(frozen=True, slots=True)
class Completion:
    """The complete answer of one choice (vLLM's ``CompletionOutput``). ``token_ids`` includes the token that ended it,
    ``text`` does not."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage  # of the whole request, all choices together
    error: str | None = None  # only with FinishReason.ERROR and REFUSED
    logprobs: tuple[TokenLogprobs, ...] | None = None

    choice: int = 0
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None  # the same for all choices
    score: float | None = None  # of a beam search: sum of log probabilities / (tokens ** length_penalty)

    @property
    def mean_logprob(self) -> float:
        """The mean log probability of the tokens in ``logprobs``, by which ``best_of`` ranks. -inf if there are none,
        as in an answer whose request did not ask for log probabilities: they are dropped after the ranking."""
        recorded = self.logprobs or ()
        return sum(one.chosen.logprob for one in recorded) / len(recorded) if recorded else -math.inf

    @classmethod
    def of(cls, deltas: Sequence[Delta], usage: Usage) -> Self:
        """Joins all ``deltas`` of one choice. ``usage`` is that of the whole request. Raises EngineError if the last
        delta has no finish reason."""
        last = deltas[-1]
        if last.finish_reason is None:
            raise EngineError(f"request {last.request_id} has no end")
        recorded = [delta.logprobs for delta in deltas if delta.logprobs is not None]
        return cls(
            text="".join(delta.text for delta in deltas),
            token_ids=tuple(token for delta in deltas for token in delta.token_ids),
            finish_reason=last.finish_reason,
            usage=usage,
            error=last.error,
            logprobs=tuple(one for each in recorded for one in each) if recorded else None,
            choice=last.choice,
            score=last.score,
        )


def completions(deltas: Sequence[Delta], params: SamplingParams) -> list[Completion]:
    """Returns the ``n`` choices of a finished request in the order of their numbers (of a beam search: best first). If
    ``best_of`` exceeds ``n``, returns the best ``n``, best first. A failed request has one completion, of the choice of
    its last delta. ``deltas`` are all deltas of the request, in order. Raises EngineError if the request has not ended.
    """
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
    wanted = params.logprobs is not None
    return [replace(one, logprobs=one.logprobs if wanted else None, prompt_logprobs=of_prompt) for one in found]
