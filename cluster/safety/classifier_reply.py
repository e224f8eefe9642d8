"""``ClassifierReply``: the reply of a replica of the classifier to a router."""

from __future__ import annotations

from dataclasses import dataclass

from safety.api import Scores


@dataclass(frozen=True, slots=True)
class ClassifierReply:
    """A reply. ``version`` names model and calibration. ``failure`` says why there are no scores, for the audit log."""

    version: str
    scores: tuple[Scores, ...] = ()
    failure: str | None = None
    busy: bool = False  # whether the failure is that too much text of the tenant waits
