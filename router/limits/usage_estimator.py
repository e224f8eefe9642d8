"""``UsageEstimator``: estimates the tokens that a request may use, before its prompts are tokenised.

Tokens per character are learnt for each tier, and the length of answers for each tenant on each tier, from requests
that have finished. An estimate is the mean plus two standard deviations, so that few requests exceed their reservation.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from engine.api import Conversation, Prompt, Usage
from router.inference_request import InferenceRequest

FIRST_TOKENS_PER_CHARACTER = 0.5  # until something is learnt; more than most tokenizers need for most languages
USUAL_TOKENS_PER_CHARACTER = 0.25  # of English, until something is learnt
MESSAGE_CHARACTERS = 16  # counted for each message, for what the chat template writes around it
WEIGHT = 1 / 64
"""Weight of the newest request in the moving average. The first 64 requests weigh equally."""
DEVIATIONS = 2.0
MAX_TENANTS = 10_000  # pairs of a tenant and a tier whose answers are remembered


@dataclass(frozen=True, slots=True)
class Statistic:
    """The exponentially weighted mean and variance of a value. ``count`` is the number of observations."""

    mean: float = 0.0
    variance: float = 0.0
    count: int = 0

    def with_value(self, value: float) -> Statistic:
        """Returns the statistic with one more value (West 1979, as a moving average)."""
        weight = max(WEIGHT, 1 / (self.count + 1))
        difference = value - self.mean
        mean = self.mean + weight * difference
        variance = (1 - weight) * (self.variance + weight * difference * difference)
        return Statistic(mean, variance, self.count + 1)

    @property
    def high(self) -> float:
        """The mean plus two standard deviations."""
        return self.mean + DEVIATIONS * math.sqrt(self.variance)


class UsageEstimator:
    """The estimates of one router. ``usual_tokens`` is the assumed length of an answer, in tokens, until one is
    learnt."""

    def __init__(self, usual_tokens: int) -> None:
        self._usual_tokens = usual_tokens
        self._ratios: dict[str, Statistic] = {}  # tokens per character, by tier
        self._answers: OrderedDict[tuple[str, str], Statistic] = OrderedDict()  # tokens, by tenant and tier

    def usage(self, tenant: str, tier: str, request: InferenceRequest, context_length: int | None) -> Usage:
        """Returns an estimate that few requests exceed, in tokens on ``tier``, none of them cached.

        Each answer counts ``max_tokens``, or the tenant's usual length without it, but at most ``context_length``.
        """
        prompt = sum(self._prompt_tokens(tier, each) for each in request.prompts)
        if (each := request.sampling.max_tokens) is None:
            learnt = self._answers.get((tenant, tier))
            each = self._usual_tokens if learnt is None else math.ceil(learnt.high)
        if context_length is not None:
            each = min(each, context_length)
        return Usage(prompt, len(request.prompts) * request.sampling.side_by_side * each, 0)

    def tokens_per_character(self, tier: str) -> tuple[float, float]:
        """Returns two estimates of the tokens per character on ``tier``: the mean, and a value that few texts
        exceed."""
        learnt = self._ratios.get(tier)
        if learnt is None or learnt.mean <= 0:
            return USUAL_TOKENS_PER_CHARACTER, FIRST_TOKENS_PER_CHARACTER
        return learnt.mean, learnt.high

    def learn(self, tenant: str, tier: str, request: InferenceRequest, usage: Usage) -> None:
        """Updates the estimates with the token counts of a finished request."""
        characters = sum(_characters(prompt) for prompt in request.prompts)
        if characters:
            known = sum(len(prompt) for prompt in request.prompts if isinstance(prompt, tuple))
            ratio = max(0, usage.prompt_tokens - known) / characters
            self._ratios[tier] = self._ratios.get(tier, Statistic()).with_value(ratio)
        answers = len(request.prompts) * request.sampling.side_by_side
        key = (tenant, tier)
        self._answers[key] = self._answers.pop(key, Statistic()).with_value(usage.completion_tokens / answers)
        if len(self._answers) > MAX_TENANTS:
            self._answers.popitem(last=False)

    def _prompt_tokens(self, tier: str, prompt: Prompt) -> int:
        if isinstance(prompt, tuple):
            return len(prompt)
        learnt = self._ratios.get(tier)
        return math.ceil(_characters(prompt) * (FIRST_TOKENS_PER_CHARACTER if learnt is None else learnt.high))


def _characters(prompt: Prompt) -> int:
    """Returns the characters of the prompt, plus MESSAGE_CHARACTERS per message and once more. Token ids count 0."""
    if isinstance(prompt, tuple):
        return 0
    if isinstance(prompt, Conversation):
        return prompt.characters + MESSAGE_CHARACTERS * (len(prompt.messages) + 1)
    return len(prompt) + MESSAGE_CHARACTERS
