"""``RequestRetrieval``: has the passages for a request searched, once it has room.

A search costs the embedder and a thread. So what would be refused without its passages is refused before the search:
by its ``max_cost``, if it exceeds that whatever passages are found; by the admission, unless passages may lead to
another tier; and by the limits, in which the request then has its place for as long as the search takes. In traces and
times the search is a second PROMPT, after which the request is routed a second time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.api import Usage
from router.inference_request import Call, InferenceRequest
from router.ledger.max_usage import least_estimate
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

        Raises AdmissionRefusedError, InvalidRequestError if its ``max_cost`` is too small for it, and as
        ``TierRouting.fit``, the limiter and the retriever do. At the end of the context nothing stays reserved for a
        request without an account.
        """
        if not request.retrieves:
            yield request, None
            return
        call.trace.enter(SpanName.PROMPT)
        fitted, route = await self._routing.fit(principal, request, route)  # a long one may be shortened afterwards too
        settled = self._routing.is_settled(principal, fitted, route)
        self._check_cost(principal, request, route, settled=settled)
        loads, tiers = self._backend.snapshot(), self._routing.allowed(principal)
        if settled:  # else the passages may take it to a tier with room
            self._admission.check(call, principal, fitted, route.tier, tiers, loads)
        async with self._accounting.ahead(principal, fitted, route.tier, context_length(loads, route.tier)) as hold:
            augmented = await self._retriever.augment(principal.tenant, request)
            call.trace.enter(SpanName.ROUTE)
            yield augmented, hold

    def _check_cost(self, principal: Principal, request: InferenceRequest, route: Route, *, settled: bool) -> None:
        """Raises InvalidRequestError if the request may cost more than its ``max_cost`` whatever passages it gets.
        ``settled``: they lead it to no other tier."""
        loads, tokens = self._backend.snapshot(), self._retriever.max_context_tokens(request)

        def least(tier: str) -> Usage:
            whole = self._routing.keeps_prompt(principal, request, tier)
            return least_estimate(request, context_length(loads, tier), tokens, whole=whole)

        moves = not settled or self._admission.may_spill(principal, request)
        tiers = self._routing.allowed(principal) if moves else [route.tier]
        self._admission.check_cost_ahead(request, route.tier, tiers, least)
