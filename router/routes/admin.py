"""``AdminRoute``: answers /admin/v1 and /v1/usage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.admin.admin_api import AdminApi
from router.admin.admin_section import AdminCall
from router.errors import RefusalError
from router.openai.errors import error_body
from router.routes.error_bodies import ErrorBodies
from router.transport.http_exchange import HttpExchange


class AdminRoute:
    """Passes requests on to ``AdminApi``."""

    def __init__(self, api: AdminApi, timeout_s: float) -> None:
        self._api = api
        self._timeout_s = timeout_s

    def methods(self, path: str) -> Sequence[str] | None:
        return self._api.methods(path)

    def error_body(self, refusal: RefusalError) -> str:
        return error_body(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Raises what ``AdminApi.handle`` raises, and TimeoutError."""
        credentials = exchange.header("authorization")
        call = AdminCall(exchange.method, path, exchange.parameters(), credentials, exchange.body)
        async with asyncio.timeout(self._timeout_s):
            reply = await self._api.handle(call)
            exchange.headers.append((b"cache-control", b"no-store"))  # a new key is shown once, and kept by no proxy
            await exchange.answer_text(200, reply.body, reply.media_type)
