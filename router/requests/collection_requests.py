"""``CollectionRequests``: the way of a request for the collections of a tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from router.errors import UnavailableError
from router.inference_request import Call
from router.ledger.ledger import Account
from router.ledger.ledger_entry import decision_of
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from router.requests.request_accounting import RequestAccounting
from router.requests.request_inspection import InspectedTexts, RequestInspection
from router.requests.request_intake import RequestIntake
from router.retrieval.retrieval_usage import RETRIEVAL, retrieval_request
from safety.api import Passage, TextUse

T = TypeVar("T")

Inspect = Callable[[Sequence[Passage], TextUse], Awaitable[InspectedTexts]]
"""Has the guard inspect texts, and returns them as it has rewritten them. Raises as ``RequestInspection.inspect_texts``
does."""


class Worked(NamedTuple, Generic[T]):
    """The result of a request, and the guard's decision on its texts in one word; None: it has no texts."""

    result: T
    safety: str | None


class CollectionRequests:
    """Authenticates and accounts for requests for collections."""

    def __init__(
        self, intake: RequestIntake, accounting: RequestAccounting, inspection: RequestInspection, clock: Clock
    ) -> None:
        self._intake = intake
        self._accounting = accounting
        self._inspection = inspection
        self._clock = clock

    async def run(self, call: Call, work: Callable[[str, bytes, Inspect], Awaitable[T]]) -> Worked[T]:
        """Authenticates a request for the tenant's collections, and returns the result of ``work``, which gets the
        tenant, the body, and what inspects the texts of the request.

        It counts as one request without tokens in the limits and the ledger. Raises a RefusalError, and what ``work``
        raises, but UnavailableError in place of StateUnavailableError.
        """
        started_at = self._clock.now()
        async with self._intake.open(call) as principal:
            body = await self._intake.body(call)  # of a GET too: a client is seen to leave only after its body
            account = Account(call, principal, retrieval_request(), RETRIEVAL, "", started_at)
            inspected = False

            async def inspect(passages: Sequence[Passage], use: TextUse) -> InspectedTexts:
                nonlocal inspected
                inspected = inspected or bool(passages)
                return await self._inspection.inspect_texts(account, passages, use)

            with self._accounting.settling(account, await self._accounting.reserve(account)):
                try:
                    found = await work(principal.tenant, body, inspect)
                except StateUnavailableError:
                    message = "The collections cannot be reached at the moment."
                    raise UnavailableError(message, "state_unavailable", retry_after_s=5) from None
            return Worked(found, decision_of(account.ruling, ()) if inspected else None)
