"""``CollectionRequests``: the way of a request for the collections of a tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from router.errors import UnavailableError
from router.inference_request import Call
from router.ledger.ledger import Account
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from router.requests.request_accounting import RequestAccounting
from router.requests.request_intake import RequestIntake
from router.retrieval.retrieval_usage import RETRIEVAL, retrieval_request

T = TypeVar("T")


class CollectionRequests:
    """Authenticates and accounts for requests for collections."""

    def __init__(self, intake: RequestIntake, accounting: RequestAccounting, clock: Clock) -> None:
        self._intake = intake
        self._accounting = accounting
        self._clock = clock

    async def run(self, call: Call, work: Callable[[str, bytes], Awaitable[T]], *, has_body: bool) -> T:
        """Authenticates a request for the tenant's collections, and returns the result of ``work``, which gets the
        tenant and the body.

        It counts as one request without tokens in the limits and the ledger. ``has_body``: the body is read; otherwise
        ``work`` gets b"". Raises a RefusalError, and what ``work`` raises, but UnavailableError in place of
        StateUnavailableError.
        """
        started_at = self._clock.now()
        async with self._intake.open(call) as principal:
            body = await self._intake.body(call) if has_body else b""
            account = Account(call, principal, retrieval_request(), RETRIEVAL, "", started_at)
            with self._accounting.settling(account, await self._accounting.reserve(account)):
                try:
                    return await work(principal.tenant, body)
                except StateUnavailableError:
                    message = "The collections cannot be reached at the moment."
                    raise UnavailableError(message, "state_unavailable", retry_after_s=5) from None
