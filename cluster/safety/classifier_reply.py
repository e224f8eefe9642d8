"""``ClassifierReply``: what a replica of the classifier answers. Both ends know it."""

from __future__ import annotations

from dataclasses import dataclass

from safety.api import Scores


@dataclass(frozen=True, slots=True)
class ClassifierReply:
    """``version`` names model and calibration. ``failure``: why there are no scores, for the audit record."""

    version: str
    scores: tuple[Scores, ...] = ()
    failure: str | None = None
    busy: bool = False  # whether the failure is that too much text of the tenant waits
