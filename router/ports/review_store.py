"""``ReviewStore``: the port to the review queue, and to the exceptions that its decisions make.

The states of an item. ``router.review.review_transitions`` has the table as a function; each store decides by it, or
as it::

    state      claim                  release            approve, reject       time
    WAITING    CLAIMED                no change          APPROVED, REJECTED    EXPIRED at ``expires_ms``
    CLAIMED    renews own, else no    WAITING if own     if own                WAITING at ``lease_ends_ms``
    APPROVED   no                     no                 the same by the same  deleted at last
    REJECTED   no                     no                 the same by the same  deleted at last
    EXPIRED    no                     no                 no                    deleted at last

Own: the reviewer of the item is the one who asks. A repeated step changes nothing and is accepted, so that a call whose
answer was lost can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ReviewState(StrEnum):
    """The state of an item."""

    WAITING = "waiting"  # for a reviewer
    CLAIMED = "claimed"  # one reviewer holds it, until the lease ends
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"  # it was not decided in time

    @property
    def open(self) -> bool:
        """Whether a reviewer can still decide on the item."""
        return self in (ReviewState.WAITING, ReviewState.CLAIMED)


class ReviewAction(StrEnum):
    """A step that a reviewer takes on an item."""

    CLAIM = "claim"
    RELEASE = "release"
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class NewReviewItem:
    """A text to be added to the review queue.

    ``id`` is unique. ``fingerprint`` identifies the text within the tenant. ``document`` is JSON of everything else;
    the store does not read it. ``text`` is the encrypted text; None: it is not stored. ``expires_in_ms`` is the longest
    wait for a decision. ``kept_ms`` is the time for which the item is kept after it was decided or has expired.
    ``keep_text``: the text is kept as long.
    """

    id: str
    tenant: str
    fingerprint: str
    document: str
    expires_in_ms: int
    kept_ms: int
    text: bytes | None = None
    keep_text: bool = False


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """An item of the queue. Times in milliseconds since the epoch by the store's clock; 0: not yet.

    ``fingerprint`` and ``document`` are as in ``NewReviewItem``. ``reviewer`` is the one who holds the item or has
    decided on it. ``times`` is the number of submissions of its text while it was open.
    """

    id: str
    tenant: str
    fingerprint: str
    document: str
    created_ms: int
    expires_ms: int
    state: ReviewState = ReviewState.WAITING
    reviewer: str = ""
    lease_ends_ms: int = 0
    decided_ms: int = 0
    times: int = 1


@dataclass(frozen=True, slots=True)
class ReviewStep:
    """A step that ``reviewer`` takes on an item. ``lease_ms`` is the lease of a claim. An approved text passes for
    ``exception_ms`` from then on, if that is above 0; ``exception_document`` is JSON that is stored with it."""

    action: ReviewAction
    reviewer: str
    lease_ms: int = 0
    exception_ms: int = 0
    exception_document: str = "{}"


@dataclass(frozen=True, slots=True)
class ReviewException:
    """An approved text of ``tenant`` that passes without review until ``expires_ms``, in milliseconds since the epoch.
    ``fingerprint`` is as in ``NewReviewItem``, ``document`` is the ``exception_document`` of the step that made it."""

    tenant: str
    fingerprint: str
    expires_ms: int
    document: str = "{}"


class ReviewQueueFullError(Exception):
    """The tenant has reached its maximum number of open items."""


class ReviewStore(Protocol):
    """The review queues of all tenants. Each method raises StateUnavailableError if the store cannot be reached."""

    async def submit(self, item: NewReviewItem, max_open: int) -> str:
        """Adds ``item`` and returns its id. If the tenant has an open item with this fingerprint already, counts one
        more submission of that item and returns its id. Raises ReviewQueueFullError if the tenant has ``max_open`` open
        items."""
        ...

    async def item(self, item_id: str, tenant: str | None = None) -> ReviewItem | None:
        """Returns an item; None if there is none, or it belongs to another tenant than ``tenant``. It takes one round
        trip if ``tenant`` is given."""
        ...

    async def text(self, tenant: str, item_id: str) -> bytes | None:
        """Returns the encrypted text of an item; None if it was not stored, or is no longer kept."""
        ...

    async def items(self, tenant: str | None, state: ReviewState | None, limit: int) -> Sequence[ReviewItem]:
        """Returns at most ``limit`` items of ``tenant``, or of all tenants.

        ``state`` None means all open items. Open items are sorted with the oldest first, other items with the last
        decided first.
        """
        ...

    async def decided(self, tenant: str | None, since_ms: int, limit: int) -> Sequence[ReviewItem]:
        """Returns at most ``limit`` items that were approved or rejected at ``since_ms`` or later, the earliest
        decision first."""
        ...

    async def step(self, tenant: str, item_id: str, step: ReviewStep) -> tuple[ReviewItem | None, bool]:
        """Changes an item by the table at the top of this module, atomically. Returns the item after the step (None if
        there is no such item), and whether the step was accepted."""
        ...

    async def has_exception(self, tenant: str, fingerprint: str) -> bool:
        """Returns whether an exception lets the text with this fingerprint pass. It takes one round trip, since a
        request waits for it."""
        ...

    async def exceptions(self, tenant: str | None = None) -> Sequence[ReviewException]:
        """Returns the exceptions of ``tenant``, or of all, sorted by tenant and fingerprint."""
        ...

    async def delete_exception(self, tenant: str, fingerprint: str) -> bool:
        """Ends the exception for texts with this fingerprint. Returns whether there was one."""
        ...
