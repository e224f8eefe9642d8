"""The transitions of an item of the review queue, by steps of reviewers and by time. Pure.

The table is in ``router.ports.review_store``. ``cluster/state/scripts/review.lua`` implements the same. A
property-based test runs the same steps on both.
"""

from __future__ import annotations

from dataclasses import replace

from router.ports.review_store import ReviewAction, ReviewItem, ReviewState, ReviewStep

FINAL = {ReviewAction.APPROVE: ReviewState.APPROVED, ReviewAction.REJECT: ReviewState.REJECTED}


def at(item: ReviewItem, now_ms: int) -> ReviewItem:
    """Returns ``item`` in its state at ``now_ms``, in milliseconds since the epoch: the end of a lease returns it to
    the queue, and an item that waits too long expires. A reviewer who holds an item beyond its expiry may still
    decide."""
    if item.state is ReviewState.CLAIMED and now_ms >= item.lease_ends_ms:
        item = replace(item, state=ReviewState.WAITING, reviewer="", lease_ends_ms=0)
    if item.state is ReviewState.WAITING and now_ms >= item.expires_ms:
        item = replace(item, state=ReviewState.EXPIRED, decided_ms=item.expires_ms)
    return item


def taken(item: ReviewItem, step: ReviewStep, now_ms: int) -> tuple[ReviewItem, bool]:
    """Returns ``item`` after ``step`` at ``now_ms``, in milliseconds since the epoch, and whether the step was
    accepted.

    Expiries are applied first, even if the step is refused. CLAIM, RELEASE and a decision are accepted while the item
    waits or ``step.reviewer`` holds it. A decision that the same reviewer repeats is accepted too, and changes nothing.
    """
    item = at(item, now_ms)
    own = item.reviewer == step.reviewer
    if step.action in FINAL:
        final = FINAL[step.action]
        if item.state is ReviewState.WAITING or (item.state is ReviewState.CLAIMED and own):
            item = replace(item, state=final, reviewer=step.reviewer, lease_ends_ms=0, decided_ms=now_ms)
            return item, True
        return item, own and item.state is final
    if item.state is ReviewState.WAITING or (item.state is ReviewState.CLAIMED and own):
        item = _claimed(item, step, now_ms) if step.action is ReviewAction.CLAIM else _released(item)
        return at(item, now_ms), True  # what is given back after its time expires at once
    return item, False


def _claimed(item: ReviewItem, step: ReviewStep, now_ms: int) -> ReviewItem:
    return replace(item, state=ReviewState.CLAIMED, reviewer=step.reviewer, lease_ends_ms=now_ms + step.lease_ms)


def _released(item: ReviewItem) -> ReviewItem:
    return replace(item, state=ReviewState.WAITING, reviewer="", lease_ends_ms=0)
