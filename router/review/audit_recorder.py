"""``AuditRecorder``: makes the entries of the audit log, for checks and for the steps of reviewers."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping

from router.ports.audit_store import AuditEntry, AuditStore
from router.ports.clock import Clock
from router.ports.review_store import ReviewItem
from router.review.fingerprint import fingerprint
from router.review.review_document import ReviewFacts
from router.review.review_keys import ReviewKeys
from safety.api import AuditRecord


class AuditRecorder:
    """Adds entries to the audit log in ``store``. ``keys`` has the key of fingerprints."""

    def __init__(self, store: AuditStore, keys: ReviewKeys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    def record(self, record: AuditRecord) -> None:
        """Records the outcome of a check. The fingerprint of its text is empty while the shared secret is unknown."""
        keys, text = self._keys.at_once(), record.text
        document = {
            "request_id": record.request_id,
            "stage": record.stage.value,
            "check": record.check,
            "version": record.version,
            "action": record.action.value,
            "outcome": record.outcome,
            "category": record.category,
            "score": _finite(record.score),
            "fingerprint": fingerprint(keys.fingerprints, record.tenant, text) if keys and text else "",
        }
        dropped = {"turns_dropped": record.turns_dropped} if record.turns_dropped else {}
        self._add(record.tenant, {**document, **dropped})

    def record_review(self, item: ReviewItem, facts: ReviewFacts, reviewer: str, outcome: str) -> None:
        """Records a step of ``reviewer`` on an item. ``outcome`` is the item's new state, or ``read``."""
        document = {
            "request_id": facts.request_id,
            "stage": "review",
            "check": facts.check,
            "version": facts.version,
            "action": "review",
            "outcome": outcome,
            "category": facts.category,
            "score": _finite(facts.score),
            "fingerprint": item.fingerprint,
            "item": item.id,
            "reviewer": reviewer,
        }
        self._add(item.tenant, document)

    def record_revocation(self, tenant: str, text_fingerprint: str, reviewer: str) -> None:
        """Records that ``reviewer`` has ended the exception for texts with the fingerprint ``text_fingerprint``."""
        document = {"stage": "review", "outcome": "revoked", "fingerprint": text_fingerprint, "reviewer": reviewer}
        self._add(tenant, document)

    def record_change(self, tenant: str, change: Mapping[str, object]) -> None:
        """Records a change by an administrator. ``change`` has the members ``check`` (the thing that was changed),
        ``outcome`` and ``reviewer``, and ``why`` if the administrator said so."""
        self._add(tenant, {"stage": "admin", **change})

    def _add(self, tenant: str, document: Mapping[str, object]) -> None:
        stamped = {"at": round(self._clock.now(), 3), "tenant": tenant, **document}
        self._store.record(AuditEntry(uuid.uuid4().hex, tenant, json.dumps(stamped)))


def _finite(score: float | None) -> float | None:
    """Returns ``score``, or None for one that JSON has no number for: its record could never be written."""
    return score if score is None or math.isfinite(score) else None
