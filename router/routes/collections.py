"""``CollectionRoute``: answers /v1/collections, where tenants keep documents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.collection_api import COLLECTIONS, CollectionApi, CollectionCall
from router.errors import RefusalError
from router.inference_request import Call
from router.openai.errors import error_body
from router.routes.error_bodies import ErrorBodies
from router.transport.http_exchange import HttpExchange


class CollectionRoute:
    """Passes requests on to ``CollectionApi``."""

    def __init__(self, api: CollectionApi, timeout_s: float) -> None:
        self._api = api
        self._timeout_s = timeout_s

    def methods(self, path: str) -> Sequence[str] | None:
        return self._api.methods(path)

    def error_body(self, refusal: RefusalError) -> str:
        return error_body(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Raises what ``CollectionApi.answer`` raises, TimeoutError and ClientLeftError."""
        feature = exchange.header("x-manta-feature")
        credentials = exchange.header("authorization")
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        call = Call(exchange.request_id, credentials, exchange.body, COLLECTIONS, feature, ends_at=ends_at)
        asked = CollectionCall(exchange.method, path, exchange.parameters(), call)
        async with asyncio.timeout_at(ends_at):
            worked = await exchange.while_connected(self._api.answer(asked))  # a check may wait for a reviewer
            if worked.safety is not None:
                exchange.headers.append((b"x-manta-safety", worked.safety.encode()))
            await exchange.answer(200, worked.result)
