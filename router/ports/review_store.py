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
        """Whether the item can still be decided."""
        return self in (ReviewState.WAITING, ReviewState.CLAIMED)


class ReviewAction(StrEnum):
    """What a reviewer does with an item."""

    CLAIM = "claim"
    RELEASE = "release"
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class NewReviewItem:
    """A text for the queue.

    ``id`` is unique. ``fingerprint`` identifies the text within the tenant. ``document`` is JSON of everything else;
    the store does not read it. ``text`` is the encrypted text; None: it is not stored. ``expires_in_ms``: how long it
    waits. ``kept_ms``: how long the item is kept after it was decided or has expired. ``keep_text``: the text too.
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

    ``reviewer`` holds the item or has decided on it. ``times`` is how often its text was submitted while it was open.
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
    """What ``reviewer`` does. ``lease_ms`` is the lease of a claim. An approved text passes for ``exception_ms`` from
    then on, if that is above 0; ``exception_document`` is JSON that is stored with it."""

    action: ReviewAction
    reviewer: str
    lease_ms: int = 0
    exception_ms: int = 0
    exception_document: str = "{}"


@dataclass(frozen=True, slots=True)
class ReviewException:
    """A text of ``tenant`` that passes until ``expires_ms``, in milliseconds since the epoch."""

    tenant: str
    fingerprint: str
    expires_ms: int
    document: str = "{}"


class ReviewQueueFullError(Exception):
    """The tenant has as many open items as it may."""


class ReviewStore(Protocol):
    """The review queues of all tenants. Each method raises StateUnavailableError if the store cannot be reached."""

    async def submit(self, item: NewReviewItem, max_open: int) -> str:
        """Adds ``item`` and returns its id. If the tenant has an open item with this fingerprint already, counts one
        more submission of that and returns its id. Raises ReviewQueueFullError beyond ``max_open`` items."""
        ...

    async def item(self, item_id: str, tenant: str | None = None) -> ReviewItem | None:
        """Returns an item; None if there is none, or it is not one of ``tenant``. One round trip if that is given."""
        ...

    async def text(self, tenant: str, item_id: str) -> bytes | None:
        """Returns the encrypted text of an item; None if it is not stored, or not any more."""
        ...

    async def items(self, tenant: str | None, state: ReviewState | None, limit: int) -> Sequence[ReviewItem]:
        """Returns at most ``limit`` items of ``tenant``, or of all tenants.

        Without ``state`` and with an open one: the oldest first. With another: the last decided first. ``state`` None:
        all open items.
        """
        ...

    async def decided(self, tenant: str | None, since_ms: int, limit: int) -> Sequence[ReviewItem]:
        """Returns at most ``limit`` items that were approved or rejected at ``since_ms`` or later, the first first."""
        ...

    async def step(self, tenant: str, item_id: str, step: ReviewStep) -> tuple[ReviewItem | None, bool]:
        """Changes an item as the table says, atomically. Returns the item as it is then; None if there is none; and
        whether the step was accepted."""
        ...

    async def has_exception(self, tenant: str, fingerprint: str) -> bool:
        """Returns whether a text passes. One round trip: a request waits for it."""
        ...

    async def exceptions(self, tenant: str | None = None) -> Sequence[ReviewException]:
        """Returns the exceptions of ``tenant``, or of all, sorted by tenant and fingerprint."""
        ...

    async def delete_exception(self, tenant: str, fingerprint: str) -> bool:
        """Ends an exception. Returns whether there was one."""
        ...
