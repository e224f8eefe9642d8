"""``Oversight``: the port to the people who review texts that a check is unsure of, and to the audit log."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from safety.api.passage import Origin, Passage, Subject
from safety.api.verdict import Action, Stage, Verdict


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """The terms, by a tenant's policy, of its items in the review queue. Times are in seconds.

    ``expires_s`` is the longest time that an item waits for a reviewer. ``show_text``: the text is stored, encrypted,
    until the item is decided or expires; without it reviewers see only check, category and score. ``keep_text``: a
    stored text is also kept after the decision, for the next training. ``exception_s`` is the time for which an
    approved text then passes without review; 0: it does not.
    """

    expires_s: float = 86_400.0
    show_text: bool = True
    keep_text: bool = False
    exception_s: float = 30 * 86_400.0


DEFAULT_TERMS = ReviewTerms()
"""The terms of a policy that says nothing about them."""


class ReviewOutcome(StrEnum):
    """The outcome of an item of the review queue."""

    APPROVED = "approved"  # the text may pass
    REJECTED = "rejected"
    EXPIRED = "expired"  # it was not decided in time: the text must not pass


class ReviewUnavailableError(Exception):
    """The review queue is full or cannot be reached. The text is not queued."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record of one check in one request, for the audit log. The check or guard that ran writes it.

    ``outcome`` is the consequence, such as ``allowed``, ``refused``, ``redacted``, ``dropped``, ``queued`` or
    ``unscanned``. ``text`` is the inspected text. It is not stored: the log has its keyed hash, by which equal texts
    are found. ``turns_dropped`` is the number of turns that were dropped from the request's conversation, if this
    record is of a verdict for which one was.
    """

    tenant: str
    request_id: str
    stage: Stage
    check: str
    version: str
    action: Action
    outcome: str
    category: str = ""
    score: float | None = None
    text: str = field(default="", repr=False)
    turns_dropped: int = 0


class Oversight(Protocol):
    """The port to the people who decide on texts that a check is unsure of, and to the audit log."""

    async def allowed(self, tenant: str, text: str, origin: Origin) -> bool:
        """Returns whether a reviewer has approved ``text`` from ``origin`` for ``tenant``, whatever its case and white
        space. A text that was approved as a user's is not approved as a document.

        It is called for texts on which a classifier's verdict is REVIEW or BLOCK; an approved text is then allowed. It
        raises no error: while the exceptions cannot be read, no text is approved.
        """
        ...

    async def submit(
        self, subject: Subject, passage: Passage, verdict: Verdict, terms: ReviewTerms = DEFAULT_TERMS
    ) -> str:
        """Puts the text of ``passage`` into the review queue of ``subject.tenant`` and returns the item's id.

        A text that is already in the queue is not queued again; the id of its item is returned. Raises
        ReviewUnavailableError if the queue is full or cannot be reached.
        """
        ...

    async def decision(self, tenant: str, item_id: str, timeout_s: float) -> ReviewOutcome:
        """Waits until a reviewer has decided on an item, or the item expires, or ``timeout_s`` seconds pass, after
        which the outcome is EXPIRED and the item stays in the queue. It raises no error."""
        ...

    def record(self, record: AuditRecord) -> None:
        """Adds ``record`` to the audit log soon, once, and returns at once.

        A record waits on disk while the log cannot be reached, and survives the end of this process there.
        """
        ...
