"""Which tier answers: the one asked for, or for ``auto`` the one that the complexity score points at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.api import Prompt
from router.config import AutoConfig
from router.openai.errors import NotFoundError
from router.tiers.complexity import SCANNED_CHARS, complexity

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Route:
    """A tier and why it was chosen, in ASCII, fit for a header."""

    tier: str
    reason: str


def choose_tier(
    model: str, prompts: Sequence[Prompt], max_tokens: int | None, tiers: Sequence[str], auto: AutoConfig
) -> Route:
    """The tier for a request that asks for ``model``. ``tiers`` are those that exist, weakest first.

    Several prompts go together to the tier of the hardest. Raises NotFoundError for a model that does not exist.
    """
    if model in tiers:
        return Route(model, "explicit")
    if model != AUTO:
        known = ", ".join([*tiers, AUTO])
        raise NotFoundError(
            f"The model '{_printable(model)}' does not exist. Available: {known}.", "model_not_found", "model"
        )
    share = SCANNED_CHARS // len(prompts)  # the time that judging takes is the request's, not each prompt's
    hardest = max((complexity(prompt, max_tokens, share) for prompt in prompts), key=lambda judged: judged.score)
    wanted = 0 if hardest.score < auto.balanced_from else 1 if hardest.score < auto.frontier_from else 2
    return Route(tiers[min(wanted, len(tiers) - 1)], f"auto; {hardest.reason()}")


def _printable(name: str) -> str:
    """A client's words, short enough and plain enough to repeat."""
    return name.encode("ascii", "backslashreplace").decode()[:64]
