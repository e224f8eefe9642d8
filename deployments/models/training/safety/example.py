"""A text with what is known of its labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from deployments.models.training.safety.labels import CATEGORIES, HARMFUL, LABELS, PARENTS


@dataclass(frozen=True, slots=True)
class Example:
    """``known`` maps labels to the probability that they hold; the loss leaves out every other label.

    ``source`` names the data set, or the rule that made the text.
    """

    text: str
    source: str
    known: Mapping[str, float] = field(default_factory=dict)


def benign(text: str, source: str, unknown: Collection[str] = ()) -> Example:
    """Returns an example with none of the labels, except those of which nothing is known."""
    return Example(text, source, {label: 0.0 for label in LABELS if label not in unknown})


def marked(
    text: str, source: str, marks: Mapping[str, float], unknown: Collection[str] = (), *, overall: bool = True
) -> Example:
    """Returns an example with the labels ``marks``; what is neither there nor in ``unknown`` does not hold.

    A marked category holds for its parent too, and, with ``overall``, for ``harmful``.
    """
    known = {label: 0.0 for label in LABELS if label not in unknown} | dict(marks)
    for label, parent in PARENTS.items():
        if label in marks:
            known[parent] = max(known.get(parent, 0.0), marks[label])
    harm = max((known[label] for label in CATEGORIES if label in marks), default=0.0)
    if overall and harm > 0 and HARMFUL not in marks:
        known[HARMFUL] = harm
    return Example(text, source, known)
