"""A run against its baseline, item by item: what was lost, what was gained, and whether that is a fall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from load_tests.quality.outcome import Outcome

OVERALL = "overall"

# Same weights, same items: only rounding on another CPU or in another kernel moves an answer. If as many as 3 % of 900
# items flipped, by chance as often up as down, the overall share would move by 0.6 points (one standard deviation) and
# that of a family of 90 by 1.8. The tolerances are over three and four of these, because some thirty families are
# looked at in each run.
OVERALL_TOLERANCE = 0.02
FAMILY_TOLERANCE = 0.08
SLACK = 2  # items: never a fall, whatever share of a small subset they are

# Of the replies whose words are stored. A flip early in a long answer changes all that follows, so words move sooner
# than scores.
REPLY_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Change:
    """``model`` on the items of one family, or on all, now and in the baseline."""

    model: str
    part: str  # OVERALL or a family
    asked: int
    before: int  # right answers
    lost: int  # right before, wrong now
    gained: int

    @property
    def now(self) -> int:
        """Right answers."""
        return self.before - self.lost + self.gained

    @property
    def fell(self) -> bool:
        """Whether the net loss is beyond tolerance."""
        tolerance = OVERALL_TOLERANCE if self.part == OVERALL else FAMILY_TOLERANCE
        return self.lost - self.gained > max(SLACK, tolerance * self.asked)

    @property
    def chance(self) -> float:
        """How likely at least so uneven a split of lost and gained is by chance alone: McNemar's exact test, both
        sides, 0 to 1."""
        flips = self.lost + self.gained
        tail = sum(math.comb(flips, k) for k in range(min(self.lost, self.gained) + 1)) / (1 << flips)
        return min(1.0, 2 * tail)

    def __str__(self) -> str:
        before, now = 100 * self.before / self.asked, 100 * self.now / self.asked
        return (
            f"{self.model}, {self.part}: {before:.1f} % -> {now:.1f} % of {self.asked} "
            f"({self.lost} lost, {self.gained} gained, p = {self.chance:.2g})"
        )


@dataclass(frozen=True, slots=True)
class Different:
    """A reply whose words are not those of the baseline."""

    model: str
    item: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.model}, {self.item}: {self.before!r} -> {self.now!r}"


def changes(outcomes: Sequence[Outcome], marks: Mapping[str, Mapping[str, bool]]) -> list[Change]:
    """Overall and by family for each model in ``marks``, which says by item's id what was right before."""
    parts: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for outcome in outcomes:
        if outcome.model in marks:
            pair = (marks[outcome.model][outcome.item.id], outcome.right)
            for part in (OVERALL, outcome.item.family):
                parts.setdefault((outcome.model, part), []).append(pair)
    return [
        Change(
            model,
            part,
            asked=len(pairs),
            before=sum(before for before, _ in pairs),
            lost=sum(before and not now for before, now in pairs),
            gained=sum(now and not before for before, now in pairs),
        )
        for (model, part), pairs in parts.items()
    ]


def different(outcomes: Sequence[Outcome], replies: Mapping[str, Mapping[str, str]]) -> list[Different]:
    """Replies that are not what ``replies`` has, by model and item's id; items that it lacks are left out."""
    return [
        Different(outcome.model, outcome.item.id, before, outcome.reply.text)
        for outcome in outcomes
        if (before := replies.get(outcome.model, {}).get(outcome.item.id)) is not None and before != outcome.reply.text
    ]
