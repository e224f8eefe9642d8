"""``RequestRetrieval``: has the passages for a request searched, once it has room.

A search costs the embedder and a thread. So what would be refused without its passages is refused before the search:
by the admission, unless passages may lead to another tier, and by the limits, in which the request then has its place
for as long as the search takes. In traces and times the search is a second PROMPT, after which the request is routed a
second time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.inference_request import Call, InferenceRequest
from router.limits.limiter import Hold
from router.ports.tier_backend import TierBackend
from router.ports.trace_names import SpanName
from router.principal import Principal
from router.requests.request_accounting import RequestAccounting
from router.requests.request_admission import RequestAdmission, context_length
from router.requests.tier_routing import TierRouting
from router.retrieval.retriever import Retriever
from router.tiers.choose_tier import Route


class RequestRetrieval:
    """Augments the requests of one router."""

    def __init__(
        self,
        retriever: Retriever,
        routing: TierRouting,
        admission: RequestAdmission,
        accounting: RequestAccounting,
        backend: TierBackend,
    ) -> None:
        self._retriever = retriever
        self._routing = routing
        self._admission = admission
        self._accounting = accounting
        self._backend = backend

    @asynccontextmanager
    async def augmented(
        self, call: Call, principal: Principal, request: InferenceRequest, route: Route
    ) -> AsyncIterator[tuple[InferenceRequest, Hold | None]]:
        """Returns the request with its passages, and what is reserved for it until its account reserves in the place of
        that; the same request and None if it asks for no passages. ``route`` is that of the request without them.

        Raises AdmissionRefusedError, and as ``TierRouting.fit``, the limiter and the retriever do. At the end of the
        context nothing stays reserved for a request without an account.
        """
        if not request.retrieves:
            yield request, None
            return
        call.trace.enter(SpanName.PROMPT)
        fitted, route = await self._routing.fit(principal, request, route)  # a long one may be shortened afterwards too
        loads, tiers = self._backend.snapshot(), self._routing.allowed(principal)
        if self._routing.is_settled(principal, fitted, route):  # else the passages may take it to a tier with room
            self._admission.check(call, principal, fitted, route.tier, tiers, loads)
        async with self._accounting.ahead(principal, fitted, route.tier, context_length(loads, route.tier)) as hold:
            augmented = await self._retriever.augment(principal.tenant, request)
            call.trace.enter(SpanName.ROUTE)
            yield augmented, hold
