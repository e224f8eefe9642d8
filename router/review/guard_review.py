"""``GuardReview``: the guards' access to the review queue, its exceptions and the audit log."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict

from router.config.review import ReviewConfig
from router.ports.clock import Clock
from router.ports.review_store import NewReviewItem, ReviewQueueFullError, ReviewState, ReviewStore
from router.ports.state_store import StateUnavailableError
from router.review.audit_recorder import AuditRecorder
from router.review.fingerprint import fingerprint
from router.review.review_document import encode, facts_of
from router.review.review_keys import ReviewKeys
from router.review.sealed_text import seal
from safety.api import (
    DEFAULT_TERMS,
    AuditRecord,
    Origin,
    Passage,
    ReviewOutcome,
    ReviewTerms,
    ReviewUnavailableError,
    Subject,
    Verdict,
)

DAY_MS = 86_400_000
EXCEPTION_CACHE_S = 5.0  # for which a found exception is not looked up again; a revoked one passes for as long
MAX_CACHED = 4096
MIN_POLL_S, MAX_POLL_S = 0.1, 2.0  # between looks at an item that a request waits for; each is twice the one before

OUTCOMES = {
    ReviewState.APPROVED: ReviewOutcome.APPROVED,
    ReviewState.REJECTED: ReviewOutcome.REJECTED,
    ReviewState.EXPIRED: ReviewOutcome.EXPIRED,
}


class GuardReview:
    """Implements ``safety.api.Oversight``. ``keys`` has the keys of fingerprints and of stored texts."""

    def __init__(
        self, store: ReviewStore, recorder: AuditRecorder, keys: ReviewKeys, config: ReviewConfig, clock: Clock
    ) -> None:
        self._reviews = store
        self._recorder = recorder
        self._keys = keys
        self._config = config
        self._clock = clock
        self._allowed: OrderedDict[tuple[str, str], float] = OrderedDict()  # monotonic seconds until which it holds

    async def allowed(self, tenant: str, text: str, origin: Origin) -> bool:
        try:
            key = (tenant, fingerprint((await self._keys.get()).fingerprints, tenant, text, origin))
            if self._allowed.get(key, 0.0) > self._clock.monotonic():
                return True
            found = await self._reviews.has_exception(*key)
        except StateUnavailableError:
            return False
        if found:
            self._remember(key)
        return found

    async def submit(
        self, subject: Subject, passage: Passage, verdict: Verdict, terms: ReviewTerms = DEFAULT_TERMS
    ) -> str:
        tenant, item_id = subject.tenant, uuid.uuid4().hex
        try:
            keys = await self._keys.get()
            item = NewReviewItem(
                item_id,
                tenant,
                fingerprint(keys.fingerprints, tenant, passage.text, passage.origin),
                encode(facts_of(subject, passage, verdict, terms)),
                expires_in_ms=max(1, int(terms.expires_s * 1000)),
                kept_ms=self._config.kept_days * DAY_MS,
                text=seal(keys.texts, tenant, item_id, passage.text) if terms.show_text else None,
                keep_text=terms.show_text and terms.keep_text,
            )
            return await self._reviews.submit(item, self._config.max_open)
        except ReviewQueueFullError as error:
            raise ReviewUnavailableError(f"the review queue is full: {error}") from error
        except StateUnavailableError as error:
            raise ReviewUnavailableError(f"the review queue cannot be reached: {error}") from error

    async def decision(self, tenant: str, item_id: str, timeout_s: float) -> ReviewOutcome:
        pause_s, ends_s = MIN_POLL_S, self._clock.monotonic() + timeout_s
        while True:
            outcome = await self._outcome(tenant, item_id)
            left_s = ends_s - self._clock.monotonic()
            if outcome is not None:
                return outcome
            if left_s <= 0:
                return ReviewOutcome.EXPIRED
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(MAX_POLL_S, 2 * pause_s)

    async def _outcome(self, tenant: str, item_id: str) -> ReviewOutcome | None:
        """Returns what became of an item; None while it is open or the store does not answer."""
        try:
            item = await self._reviews.item(item_id, tenant)
        except StateUnavailableError:
            return None
        return ReviewOutcome.EXPIRED if item is None else OUTCOMES.get(item.state)

    def record(self, record: AuditRecord) -> None:
        self._recorder.record(record)

    def _remember(self, key: tuple[str, str]) -> None:
        self._allowed[key] = self._clock.monotonic() + EXCEPTION_CACHE_S
        self._allowed.move_to_end(key)
        while len(self._allowed) > MAX_CACHED:
            self._allowed.popitem(last=False)
