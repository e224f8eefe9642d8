"""``TextClassifier``: the port to the classifier, with its scores and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Scores:
    """A classifier's scores of one text: a calibrated probability, 0 to 1, for each category and for an injection.

    ``flagged``: at least one of them is above the threshold that ships with the model.
    """

    categories: Mapping[str, float]
    injection: float
    flagged: bool


class ClassifierUnavailableError(Exception):
    """The classifier did not answer in time, is considered dead, or gave a malformed answer."""


class ClassifierBusyError(ClassifierUnavailableError):
    """The tenant's queue at the classifier is full. The classifier itself is well."""


class TextTooLongError(Exception):
    """Texts have more than ``limit`` characters, the most that the tenant's policy allows. ``place`` is the index of
    the text that exceeds it."""

    def __init__(self, limit: int, place: int) -> None:
        super().__init__(f"more than {limit} characters")
        self.limit = limit
        self.place = place


class TextClassifier(Protocol):
    """Scores texts. ``version`` identifies model and calibration."""

    @property
    def version(self) -> str: ...

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        """Returns the scores of each text, in order. Long texts are cut into windows; the maximum over the windows
        counts.

        ``tenant`` is the owner of the texts: tenants take turns. ``urgent``: the caller waits for its first token, or
        for its whole response, so that the call comes before checks beside an answer and after it.

        Raises ClassifierUnavailableError if the classifier does not answer, and ClassifierBusyError if the tenant's
        queue is full.
        """
        ...


@dataclass(frozen=True, slots=True)
class Moderation:
    """The classifier's result for one text, by the tenant's policy, for the moderation API.

    ``scores`` are the probabilities of the categories; those in ``flagged`` would be reviewed or blocked in a request.
    """

    scores: Mapping[str, float]
    flagged: frozenset[str]
    injection: float
    injection_flagged: bool
