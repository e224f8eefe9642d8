"""``RequestIntake``: the first step of each request: its place in the router, and who sends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.access.authenticator import Authenticator
from router.access.permissions import check_endpoint
from router.inference_request import Call
from router.limits.router_concurrency import ConcurrencyLimit
from router.ports.trace_names import SpanName
from router.principal import Principal


class RequestIntake:
    """Admits requests to one router. ``concurrency`` limits how many it has at once, and ``max_body_bytes`` the body of
    each."""

    def __init__(self, authenticator: Authenticator, concurrency: ConcurrencyLimit, max_body_bytes: int) -> None:
        self._authenticator = authenticator
        self._concurrency = concurrency
        self._max_body_bytes = max_body_bytes

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Principal]:
        """Counts the request while the context is open. Returns the principal of its credentials, which may use its
        endpoint. Raises RateLimitError if the router is full, or has few places left of which the tenant has its
        share, AuthenticationError, PermissionDeniedError, and UnavailableError if the credentials cannot be checked."""
        with self._concurrency.admit():
            call.trace.enter(SpanName.ACCESS)
            principal = await self._authenticator.authenticate(call.credentials, call.feature)
            call.trace.belongs_to(principal.tenant)
            check_endpoint(principal, call.endpoint)
            with self._concurrency.share(principal.tenant):
                yield principal

    async def body(self, call: Call) -> bytes:
        """Reads the body. Raises InvalidRequestError if it is too large."""
        return await call.read(self._max_body_bytes)
