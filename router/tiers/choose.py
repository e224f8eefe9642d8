"""Which tier answers: the one asked for, or for ``auto`` the cheapest that is expected to do well enough.

What is expected comes from a forecaster fitted to the tiers, where there is one. Without one, and for prompts of token
ids, which only a tokenizer could read, the complexity score decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.api import Prompt
from router.config import AutoConfig
from router.openai.errors import NotFoundError
from router.tiers.complexity import SCANNED_CHARS, complexity
from router.tiers.forecast import READ_CHARS, Forecaster, Text, cheapest_within, features

AUTO = "auto"
MIN_SCANNED_CHARS = 500  # characters of each prompt, however many there are


@dataclass(frozen=True, slots=True)
class Route:
    """A tier and why it was chosen, in ASCII, fit for a header."""

    tier: str
    reason: str


def choose_tier(
    model: str,
    prompts: Sequence[Prompt],
    max_tokens: int | None,
    tiers: Sequence[str],
    auto: AutoConfig,
    forecaster: Forecaster | None = None,
) -> Route:
    """The tier for a request that asks for ``model``. ``tiers`` are those that exist, weakest first; ``forecaster``,
    if there is one, knows the same.

    Several prompts go together to the tier of the hardest. Raises NotFoundError for a model that does not exist.
    """
    if model in tiers:
        return Route(model, "explicit")
    if model != AUTO:
        known = ", ".join([*tiers, AUTO])
        raise NotFoundError(
            f"The model '{_printable(model)}' does not exist. Available: {known}.", "model_not_found", "model"
        )
    texts = [prompt for prompt in prompts if not isinstance(prompt, tuple)]
    if forecaster is not None and len(texts) == len(prompts):
        return _by_forecast(texts, forecaster, auto.tolerance)
    return _by_complexity(prompts, max_tokens, tiers, auto)


def _by_forecast(prompts: Sequence[Text], forecaster: Forecaster, tolerance: float) -> Route:
    share = max(READ_CHARS // len(prompts), MIN_SCANNED_CHARS)
    expected = [forecaster.expect(features(prompt, share)) for prompt in prompts]
    tier, chances = max(
        ((cheapest_within(chances, tolerance), chances) for chances in expected), key=lambda chosen: chosen[0]
    )
    told = ", ".join(f"{_printable(name)} {chance:.2f}" for name, chance in zip(forecaster.tiers, chances, strict=True))
    return Route(forecaster.tiers[tier], f"auto; expected {told}; tolerance {tolerance:.2f}")


def _by_complexity(prompts: Sequence[Prompt], max_tokens: int | None, tiers: Sequence[str], auto: AutoConfig) -> Route:
    share = SCANNED_CHARS // len(prompts)  # the time that judging takes is the request's, not each prompt's
    hardest = max((complexity(prompt, max_tokens, share) for prompt in prompts), key=lambda judged: judged.score)
    wanted = 0 if hardest.score < auto.balanced_from else 1 if hardest.score < auto.frontier_from else 2
    return Route(tiers[min(wanted, len(tiers) - 1)], f"auto; {hardest.reason()}")


def _printable(name: str) -> str:
    """A client's words, short enough and plain enough to repeat."""
    return name.encode("ascii", "backslashreplace").decode()[:64]
