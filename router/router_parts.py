"""``RouterParts``: what a router starts before its first request, and closes after its last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from router.access.authenticator import Authenticator
from router.cache.answer_cache import AnswerCache
from router.idempotency.idempotent_requests import IdempotentRequests
from router.ledger.ledger import Ledger
from router.limits.limiter import Limiter
from router.ports.state_store import StateStore
from router.ports.text_log import TextLog
from router.ports.tier_backend import OrphanedAttempt, TierBackend
from router.prompts.stored_prompts import StoredPrompts
from router.resume.detached_streams import DetachedStreams
from router.retrieval.collections import Collections
from router.review.review_wiring import ReviewService
from router.transport.requests_outliving_client import RequestsOutlivingClient


@dataclass(frozen=True, slots=True)
class RouterParts:
    """The parts of a router that have background tasks or connections. ``cache`` None: there is no answer cache.
    ``texts`` None: no texts are logged."""

    store: StateStore
    reviews: ReviewService
    collections: Collections
    authenticator: Authenticator
    limiter: Limiter
    prompts: StoredPrompts
    streams: DetachedStreams
    idempotency: IdempotentRequests
    cache: AnswerCache | None
    ledger: Ledger
    backend: TierBackend
    outliving: RequestsOutlivingClient
    texts: TextLog | None = None

    async def start(self) -> None:
        """Starts the stores, then what uses them, and the backend last, whose requests need all of them."""
        await self.store.start()
        await self.reviews.start()
        await self.collections.start()
        await self.authenticator.start()
        await self.limiter.start()
        await self.prompts.start()
        await self.streams.start()
        await self.idempotency.start()
        if self.cache is not None:
            await self.cache.start()
        if self.texts is not None:
            self.texts.start()
        await self.backend.start(self.adopt)

    async def close(self) -> None:
        """Closes what still generates, then the rest, and the store last.

        The ledger is closed before the backend, since lanes bring the token counts that its last entries wait for.
        """
        await self.outliving.close()
        await self.streams.close()
        await self.ledger.close()
        await self.prompts.close()
        await self.authenticator.close()
        await self.limiter.close()
        await self.idempotency.close()
        if self.cache is not None:
            await self.cache.close()
        await self.backend.close()
        if self.texts is not None:
            await asyncio.to_thread(self.texts.close)
        await self.collections.close()
        await self.reviews.close()
        await self.store.close()

    def adopt(self, orphans: Sequence[OrphanedAttempt]) -> None:
        """Writes the ledger entries of attempts whose router has died. Their reservations end when their leases
        expire."""
        for orphan in orphans:
            self.ledger.adopt(orphan)
