"""``choose_tier``: chooses the tier for a request. It is the tier that ``model`` names, or for ``auto`` the cheapest
one that is expected to answer well enough. Pure.

For ``auto``, a forecaster that was fitted to the tiers decides. Without a forecaster, and for prompts of token ids,
which it cannot read, the complexity score decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.api import Prompt
from router.config.auto import AutoConfig
from router.errors import NotFoundError
from router.tiers.complexity import SCANNED_CHARS, complexity
from router.tiers.conversation_forecast import conversation_chances
from router.tiers.quality_forecast import READ_CHARS, Forecaster, Text, cheapest_within, features

AUTO = "auto"
MIN_SCANNED_CHARS = 500  # the forecaster reads at least this much of each of several prompts
FIRST_THRESHOLD, LAST_THRESHOLD = 0.30, 0.55  # of the second and the last tier, where the config sets none


@dataclass(frozen=True, slots=True)
class Route:
    """The chosen tier. ``reason`` says in ASCII why the tier was chosen, for a response header."""

    tier: str
    reason: str


@dataclass(frozen=True, slots=True)
class TierChoice:
    """The settings by which tiers are chosen.

    ``tiers`` are all tiers, weakest first. ``auto`` None: there is no model ``auto``. ``forecaster`` was fitted to the
    same tiers. ``aliases`` maps further model names to tiers or to ``auto``.
    """

    tiers: Sequence[str]
    auto: AutoConfig | None
    forecaster: Forecaster | None = None
    aliases: Mapping[str, str] | None = None

    @property
    def targets(self) -> dict[str, str]:
        """The tier, or ``auto``, behind every name that a request may give as ``model``."""
        return model_names(self, self.tiers)


def model_names(choice: TierChoice, allowed: Sequence[str]) -> dict[str, str]:
    """Returns every name that a request may give as ``model``, with its tier or ``auto``: tiers, ``auto``, aliases.

    ``allowed`` are the tiers that the API key may use. If there are none, ``auto`` is left out.
    """
    names = {tier: tier for tier in allowed}
    if choice.auto is not None and allowed:
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
    """Returns the tier for a request that asks for ``model``. ``max_tokens`` is the requested length limit of the
    answer; None: there is none.

    ``allowed`` are the tiers that the API key may use, weakest first; None: all. All prompts of a request go to one
    tier; ``auto`` chooses that of the hardest prompt. Raises NotFoundError for a model that does not exist or that the
    key may not use.
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
    """Returns the lowest complexity score at which each tier is chosen; 0 for the weakest. Tiers without a threshold
    are left out.

    ``tiers`` are all tiers, weakest first.
    """
    if auto.thresholds is not None:
        return {tiers[0]: 0.0} | {tier: auto.thresholds[tier] for tier in tiers if tier in auto.thresholds}
    step = (LAST_THRESHOLD - FIRST_THRESHOLD) / max(len(tiers) - 2, 1)
    return {tier: FIRST_THRESHOLD + step * (place - 1) if place else 0.0 for place, tier in enumerate(tiers)}


def _by_forecast(prompts: Sequence[Text], forecaster: Forecaster, tiers: Sequence[str], tolerance: float) -> Route:
    """Returns the cheapest of ``tiers`` whose forecast chance for the hardest prompt is close enough to the best."""
    share = max(READ_CHARS // len(prompts), MIN_SCANNED_CHARS)
    columns = [place for place, tier in enumerate(forecaster.tiers) if tier in tiers]
    expected = [tuple(chances[place] for place in columns) for chances in _expected(prompts, forecaster, tiers, share)]
    hardest, chances = max(
        ((cheapest_within(chances, tolerance), chances) for chances in expected), key=lambda chosen: chosen[0]
    )
    names = [forecaster.tiers[place] for place in columns]
    parts = ", ".join(f"{_printable(name)} {chance:.2f}" for name, chance in zip(names, chances, strict=True))
    return Route(names[hardest], f"auto; expected {parts}; tolerance {tolerance:.2f}")


def _expected(
    prompts: Sequence[Text], forecaster: Forecaster, tiers: Sequence[str], read_chars: int
) -> Iterator[tuple[float, ...]]:
    """Yields the chances of all the forecaster's tiers for each prompt."""
    for prompt in prompts:
        if forecaster.tiers[-1] in tiers:
            yield conversation_chances(forecaster, prompt, read_chars)
        else:  # where no tier may answer open questions, that a question is open says nothing of the others
            yield forecaster.expect(features(prompt, read_chars))


def _by_complexity(
    prompts: Sequence[Prompt], max_tokens: int | None, minimum_scores: Mapping[str, float], tiers: Sequence[str]
) -> Route:
    """Returns the strongest of ``tiers`` whose threshold the most complex prompt reaches; else the weakest."""
    share = SCANNED_CHARS // len(prompts)  # bounds the time for the request, however many prompts it has
    hardest = max((complexity(prompt, max_tokens, share) for prompt in prompts), key=lambda scored: scored.score)
    reached = [tier for tier in tiers if tier in minimum_scores and minimum_scores[tier] <= hardest.score]
    return Route(reached[-1] if reached else tiers[0], f"auto; {hardest.reason()}")


def _printable(name: str) -> str:
    """Returns a client's text as it may be repeated in an error or a header: ASCII, at most 64 characters."""
    return name.encode("ascii", "backslashreplace").decode()[:64]
