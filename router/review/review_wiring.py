"""``ReviewService``: wires a router's parts for reviews and the audit log to one store and one secret."""

from __future__ import annotations

from collections.abc import Mapping

from router.config.review import ReviewConfig
from router.ports.clock import Clock
from router.ports.safety_store import SafetyStore
from router.review.audit_reader import AuditReader
from router.review.audit_recorder import AuditRecorder
from router.review.guard_review import GuardReview
from router.review.review_keys import ReviewKeys
from router.review.reviewer_operations import ReviewerOperations


class ReviewService:
    """The parts for reviews and the audit log: ``oversight`` for the guards, ``desk`` and ``audit`` for the admin API.
    ``store`` also has the tenants' safety policies, and ``keys`` the key of the guards' canary tokens.

    Raises ValueError for a secret of ``config`` that cannot be read.
    """

    def __init__(self, store: SafetyStore, config: ReviewConfig, clock: Clock) -> None:
        self.store = store
        self.keys = keys = ReviewKeys(config.read_secret(), store.secret)
        self._recorder = AuditRecorder(store.audit, keys, clock)
        self.oversight = GuardReview(store.reviews, self._recorder, keys, config, clock)
        self.desk = ReviewerOperations(store.reviews, self._recorder, keys, config)
        self.audit = AuditReader(store.audit, config.audit_days)

    def record_change(self, tenant: str, change: Mapping[str, object]) -> None:
        """Records an administrator's change to a tenant in the audit log, as ``AuditRecorder.record_change``. Returns
        at once."""
        self._recorder.record_change(tenant, change)

    async def start(self) -> None:
        """Starts the store and fetches the shared secret, if the store answers."""
        await self.store.start()
        await self.keys.fetch()

    async def close(self) -> None:
        """Closes the store."""
        await self.store.close()
