"""``SentAnswer``: the part of an answer that the attempts at one engine request have sent. ``continuations``: the
requests that generate the rest of the answer on another replica. Pure.

The engine's random numbers are a function of seed, choice and position (Salmon et al. 2011), and it replays the tokens
of ``GenerationRequest.resume`` through its grammar, stop strings, penalties and detokeniser. So a continuation needs
nothing but the tokens, and the texts before and after the cut, joined, are those of an undisturbed run. The choices of
a request that was cut are continued one by one, each with the seed that it had.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.api import Delta, GenerationRequest, SamplingParams, choice_seed


class SentAnswer:
    """The tokens that were sent to the client, by choice, and the choices whose end was sent. ``began``: something was
    sent.

    Tokens take four bytes each. There are at most as many as the model's context has, times ``choices``.
    """

    __slots__ = ("began", "ended", "tokens")

    def __init__(self, choices: int) -> None:
        self.tokens = [array("I") for _ in range(choices)]
        self.ended: set[int] = set()
        self.began = False

    def push(self, deltas: Sequence[Delta]) -> int:
        """Adds ``deltas``, in order. Returns the number of their tokens. It is called for every token, so it has to be
        cheap."""
        self.began = True
        tokens, count = self.tokens, 0
        for delta in deltas:
            if new := delta.token_ids:
                tokens[delta.choice].extend(new)
                count += len(new)
            if delta.finish_reason is not None:
                self.ended.add(delta.choice)
        return count

    @property
    def ended_tokens(self) -> int:
        """The total number of tokens in the choices that have ended."""
        return sum(len(self.tokens[choice]) for choice in self.ended)


@dataclass(frozen=True, slots=True)
class Continuation:
    """An engine request for the rest of an answer. ``choice`` is the number, in the original request, of its only
    choice; None: it has all choices of the original request."""

    request: GenerationRequest
    choice: int | None = None


def continuations(request: GenerationRequest, sent: SentAnswer, version: str) -> list[Continuation]:
    """Returns the requests for the rest of ``request``, of which ``sent`` was sent by a replica with the model
    ``version`` ("": unknown).

    If nothing was sent, as in a beam search before its end, the only one is ``request`` itself. The list is empty if
    all choices have ended, or if a part of a beam search's answers, which come at once, was sent. ``request`` has a
    seed, since another engine would draw another one. Tokens that were sent are neither generated nor scored again. The
    deadline is left out, since it is for the first token.
    """
    if not sent.began:
        return [Continuation(request)]
    sampling = request.sampling
    if sampling.beam is not None:
        return []
    if sampling.choices == 1:
        rest = replace(sampling, prompt_logprobs=None)
        return [Continuation(_resumed(request, rest, sent.tokens[0], version))]
    return [
        Continuation(_resumed(request, _single(sampling, choice), tokens, version), choice)
        for choice, tokens in enumerate(sent.tokens)
        if choice not in sent.ended
    ]


def _resumed(
    request: GenerationRequest, sampling: SamplingParams, tokens: Sequence[int], version: str
) -> GenerationRequest:
    """Returns ``request`` with other settings, and ``tokens`` added to those that it resumes."""
    resume = (*request.resume, *tokens)
    return replace(request, sampling=sampling, resume=resume, deadline_s=None, model_version=version)


def _single(sampling: SamplingParams, choice: int) -> SamplingParams:
    """Returns the settings by which one choice of a request is generated alone."""
    assert sampling.seed is not None, "the router draws a seed for each request that has none"
    # ``best_of`` ranks by log probabilities, which it records without being asked for them.
    logprobs = 0 if sampling.records_logprobs and sampling.logprobs is None else sampling.logprobs
    seed = choice_seed(sampling.seed, choice)
    return replace(sampling, n=1, best_of=None, seed=seed, logprobs=logprobs, prompt_logprobs=None)
