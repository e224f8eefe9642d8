"""Which tier answers: the one asked for, or for ``auto`` the cheapest that is expected to do well enough. Pure.

A forecaster fitted to the tiers gives the expectation. Without one, and for prompts of token ids, which only a
tokenizer could read, the complexity score decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.api import Prompt
from router.config import AutoConfig
from router.errors import NotFoundError
from router.tiers.complexity import SCANNED_CHARS, complexity
from router.tiers.quality_forecast import READ_CHARS, Forecaster, Text, cheapest_within, features

AUTO = "auto"
MIN_SCANNED_CHARS = 500  # of each prompt, however many prompts share the time
FIRST_THRESHOLD, LAST_THRESHOLD = 0.30, 0.55  # complexity scores, where the config sets none


@dataclass(frozen=True, slots=True)
class Route:
    """A tier and why it was chosen, in ASCII, fit for a header."""

    tier: str
    reason: str


@dataclass(frozen=True, slots=True)
class TierChoice:
    """What tiers are chosen by. ``tiers`` are all that exist, weakest first; ``forecaster`` knows the same ones.

    ``auto`` None: there is no ``auto``. ``aliases`` are other names of tiers and of ``auto``.
    """

    tiers: Sequence[str]
    auto: AutoConfig | None
    forecaster: Forecaster | None = None
    aliases: Mapping[str, str] | None = None


def model_names(choice: TierChoice, allowed: Sequence[str]) -> dict[str, str]:
    """The tier, or ``auto``, behind every name that a request may give as ``model``. ``allowed`` are the tiers that the
    key may use."""
    names = {tier: tier for tier in allowed}
    if choice.auto is not None:
        names[AUTO] = AUTO
    aliases = (choice.aliases or {}).items()
    return names | {alias: target for alias, target in aliases if target in names}


def choose_tier(
    model: str,
    prompts: Sequence[Prompt],
    max_tokens: int | None,
    choice: TierChoice,
    allowed: Sequence[str] | None = None,
) -> Route:
    """The tier for a request that asks for ``model``. ``allowed`` are the tiers that the key may use, weakest first;
    None: all.

    Several prompts go together to the tier of the hardest. Raises NotFoundError for a model that does not exist.
    """
    tiers = choice.tiers if allowed is None else allowed
    names = model_names(choice, tiers)
    if model not in names:
        known = ", ".join(names)
        raise NotFoundError(
            f"The model '{_printable(model)}' does not exist. Available: {known}.", "model_not_found", "model"
        )
    target = names[model]
    named = "explicit" if model == target else f"alias {_printable(model)}"
    if target != AUTO or choice.auto is None:
        return Route(target, named)
    texts = [prompt for prompt in prompts if not isinstance(prompt, tuple)]
    if choice.forecaster is not None and len(texts) == len(prompts):
        return _by_forecast(texts, choice.forecaster, tiers, choice.auto.tolerance)
    return _by_complexity(prompts, max_tokens, thresholds(choice.tiers, choice.auto), tiers)


def thresholds(tiers: Sequence[str], auto: AutoConfig) -> dict[str, float]:
    """The complexity score from which each of ``tiers`` answers; 0 for the weakest."""
    if auto.thresholds is not None:
        return {tiers[0]: 0.0} | {tier: auto.thresholds[tier] for tier in tiers if tier in auto.thresholds}
    step = (LAST_THRESHOLD - FIRST_THRESHOLD) / max(len(tiers) - 2, 1)
    return {tier: FIRST_THRESHOLD + step * (place - 1) if place else 0.0 for place, tier in enumerate(tiers)}


def _by_forecast(prompts: Sequence[Text], forecaster: Forecaster, tiers: Sequence[str], tolerance: float) -> Route:
    share = max(READ_CHARS // len(prompts), MIN_SCANNED_CHARS)
    columns = [place for place, tier in enumerate(forecaster.tiers) if tier in tiers]
    expected = [
        tuple(chances[place] for place in columns)
        for chances in (forecaster.expect(features(prompt, share)) for prompt in prompts)
    ]
    hardest, chances = max(
        ((cheapest_within(chances, tolerance), chances) for chances in expected), key=lambda chosen: chosen[0]
    )
    names = [forecaster.tiers[place] for place in columns]
    parts = ", ".join(f"{_printable(name)} {chance:.2f}" for name, chance in zip(names, chances, strict=True))
    return Route(names[hardest], f"auto; expected {parts}; tolerance {tolerance:.2f}")


def _by_complexity(
    prompts: Sequence[Prompt], max_tokens: int | None, begins: Mapping[str, float], tiers: Sequence[str]
) -> Route:
    share = SCANNED_CHARS // len(prompts)  # the time that judging takes is the request's, not each prompt's
    hardest = max((complexity(prompt, max_tokens, share) for prompt in prompts), key=lambda judged: judged.score)
    reached = [tier for tier in tiers if tier in begins and begins[tier] <= hardest.score]
    return Route(reached[-1] if reached else tiers[0], f"auto; {hardest.reason()}")


def _printable(name: str) -> str:
    """A client's words, short and plain enough to repeat in an error or a header."""
    return name.encode("ascii", "backslashreplace").decode()[:64]
