"""From outcomes to figures: shares of right answers, tokens, and what they cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from load_tests.quality.outcome import Outcome

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Score:
    """``right`` answers of ``asked`` questions."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """Between 0 and 1; NaN if nothing was asked."""
        return self.right / self.asked if self.asked else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share: what another draw of as many questions might have given."""
        if not self.asked:
            return math.nan, math.nan
        z = 1.96
        spread = z * math.sqrt(self.share * (1 - self.share) / self.asked + (z / (2 * self.asked)) ** 2)
        middle, scale = self.share + z * z / (2 * self.asked), 1 + z * z / self.asked
        return (middle - spread) / scale, (middle + spread) / scale


def clustered_error(clusters: Sequence[Sequence[bool]]) -> float:
    """Standard error of the share of right marks when those of one cluster stand or fall together, as the instructions
    of one prompt do: Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), section 2.2. NaN without a mark."""
    count = sum(map(len, clusters))
    if not count:
        return math.nan
    share = sum(map(sum, clusters)) / count
    return math.sqrt(sum((sum(marks) - share * len(marks)) ** 2 for marks in clusters)) / count


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model, as it was asked for, on the set. ``families`` and ``levels`` are in the order of the items.

    ``compute`` sums, over the requests, tokens times the parameters of the tier that answered: a forward pass costs
    about two operations for each. None if a tier's size is not known. Prompt tokens from the prefix cache count too.
    """

    model: str
    overall: Score
    families: dict[str, Score]
    levels: dict[int, Score]
    cells: dict[tuple[str, int], Score]
    prompt_tokens: int
    completion_tokens: int
    tiers: dict[str, int]  # how many requests each answered
    compute: int | None
    failures: tuple[Outcome, ...]


def score(outcomes: Iterable[Outcome]) -> Score:
    """All outcomes as one figure."""
    marks = [outcome.right for outcome in outcomes]
    return Score(sum(marks), len(marks))


def scores(outcomes: Iterable[Outcome], key: Callable[[Outcome], Key]) -> dict[Key, Score]:
    """A figure for each value of ``key``, in the order in which they come up."""
    groups: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return {name: score(group) for name, group in groups.items()}


def reports(outcomes: Sequence[Outcome], sizes: Mapping[str, int]) -> list[ModelReport]:
    """A report for each model in ``outcomes``. ``sizes`` are the parameters of each tier, as far as known."""
    models: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        models.setdefault(outcome.model, []).append(outcome)
    return [_report(model, mine, sizes) for model, mine in models.items()]


def _report(model: str, outcomes: Sequence[Outcome], sizes: Mapping[str, int]) -> ModelReport:
    levels = scores(outcomes, lambda outcome: outcome.item.level)
    return ModelReport(
        model=model,
        overall=score(outcomes),
        families=scores(outcomes, lambda outcome: outcome.item.family),
        levels={level: levels[level] for level in sorted(levels)},
        cells=scores(outcomes, lambda outcome: (outcome.item.family, outcome.item.level)),
        prompt_tokens=sum(outcome.reply.prompt_tokens for outcome in outcomes),
        completion_tokens=sum(outcome.reply.completion_tokens for outcome in outcomes),
        tiers=dict(Counter(str(o.reply.tier) for o in outcomes if o.reply.problem is None).most_common()),
        compute=_compute(outcomes, sizes),
        failures=tuple(outcome for outcome in outcomes if outcome.reply.problem is not None),
    )


def _compute(outcomes: Iterable[Outcome], sizes: Mapping[str, int]) -> int | None:
    answered = [(outcome.tokens, outcome.reply.tier) for outcome in outcomes if outcome.reply.problem is None]
    if any(tier not in sizes for _, tier in answered):
        return None
    return sum(tokens * sizes[tier] for tokens, tier in answered if tier is not None)
