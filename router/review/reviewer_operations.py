"""``ReviewerOperations``: the operations of reviewers on the review queue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from router.config.review import ReviewConfig
from router.errors import ConflictError, NotFoundError
from router.ports.review_store import (
    ReviewAction,
    ReviewException,
    ReviewItem,
    ReviewState,
    ReviewStep,
    ReviewStore,
)
from router.review.audit_recorder import AuditRecorder
from router.review.review_document import ReviewFacts, decode
from router.review.review_keys import ReviewKeys
from router.review.sealed_text import unseal


@dataclass(frozen=True, slots=True)
class ReviewCase:
    """A review item, the check's finding, and the text; None: it was not stored, or is no longer kept."""

    item: ReviewItem
    facts: ReviewFacts
    text: str | None = None


class ReviewerOperations:
    """Lists, shows and decides items of ``store``. What a reviewer reads and does is in the audit log.

    Each method raises StateUnavailableError.
    """

    def __init__(self, store: ReviewStore, recorder: AuditRecorder, keys: ReviewKeys, config: ReviewConfig) -> None:
        self._store = store
        self._recorder = recorder
        self._keys = keys
        self._config = config

    async def list(self, tenant: str | None, state: ReviewState | None, limit: int) -> Sequence[ReviewCase]:
        """Returns items without their texts, as ``ReviewStore.items`` orders them. At most ``limit`` items; ``tenant``
        None: of all tenants."""
        found = await self._store.items(tenant, state, limit)
        return [ReviewCase(item, decode(item.document)) for item in found]

    async def show(self, item_id: str, reviewer: str) -> ReviewCase:
        """Returns an item with its text. If there is a text, the audit log records that ``reviewer`` has read it.
        Raises NotFoundError for an unknown item."""
        item = await self._store.item(item_id)
        if item is None:
            raise _not_found()
        case = await self._with_text(item)
        if case.text is not None:
            self._recorder.record_review(item, case.facts, reviewer, "read")
        return case

    async def take(
        self, item_id: str, action: ReviewAction, reviewer: str, exception_s: float | None = None
    ) -> ReviewCase:
        """Takes the step ``action`` as ``reviewer`` and returns the item, with its text if that is still stored.

        ``exception_s`` is the time in seconds for which an approved text then passes without review; None: the time in
        the policy when the item was queued. Raises NotFoundError, and ConflictError if another reviewer holds the item,
        or it is decided or expired.
        """
        item = await self._store.item(item_id)
        if item is None:
            raise _not_found()
        facts = decode(item.document)
        exception_ms = int(1000 * (facts.exception_s if exception_s is None else exception_s))
        made = {"item": item_id, "reviewer": reviewer, "category": facts.category, "origin": facts.origin}
        document = json.dumps(made)
        step = ReviewStep(action, reviewer, int(1000 * self._config.lease_s), exception_ms, document)
        after, accepted = await self._store.step(item.tenant, item_id, step)
        if after is None:
            raise _not_found()
        if not accepted:
            raise _conflict(after)
        self._recorder.record_review(after, facts, reviewer, after.state.value)
        return await self._with_text(after)

    async def decided(self, tenant: str | None, since_ms: int, limit: int, reviewer: str) -> Sequence[ReviewCase]:
        """Returns approved and rejected items with the texts that were kept, in the order of their decisions. At most
        ``limit`` items, decided at or after ``since_ms``, in milliseconds since the epoch. The audit log records that
        ``reviewer`` has read each text."""
        cases = [await self._with_text(item) for item in await self._store.decided(tenant, since_ms, limit)]
        for case in cases:
            if case.text is not None:
                self._recorder.record_review(case.item, case.facts, reviewer, "read")
        return cases

    async def exceptions(self, tenant: str | None) -> Sequence[ReviewException]:
        """Returns the exceptions of ``tenant``, or of all tenants for None."""
        return await self._store.exceptions(tenant)

    async def revoke(self, tenant: str, fingerprint: str, reviewer: str) -> None:
        """Ends the exception for texts with this fingerprint; the audit log records that ``reviewer`` did. Raises
        NotFoundError if there is none."""
        if not await self._store.delete_exception(tenant, fingerprint):
            raise NotFoundError("There is no such exception.", "exception_not_found")
        self._recorder.record_revocation(tenant, fingerprint, reviewer)

    async def _with_text(self, item: ReviewItem) -> ReviewCase:
        sealed = await self._store.text(item.tenant, item.id)
        key = (await self._keys.get()).texts
        text = None if sealed is None else unseal(key, item.tenant, item.id, sealed)
        return ReviewCase(item, decode(item.document), text)


def _not_found() -> NotFoundError:
    return NotFoundError("There is no such review item.", "review_item_not_found")


def _conflict(item: ReviewItem) -> ConflictError:
    """Returns the error of a step that the state of ``item`` does not allow."""
    if item.state is ReviewState.CLAIMED:
        return ConflictError("Another reviewer holds this item.", "review_item_claimed")
    return ConflictError(f"This item is {item.state.value} already.", "review_item_final")
