"""``ModerationRoute``: answers /v1/moderations."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace

from router.errors import RefusalError
from router.inference_request import Call
from router.openai.errors import error_body
from router.openai.moderations import moderation_body, moderation_texts
from router.ports.tracer import Tracer
from router.requests.moderation_requests import ModerationRequests
from router.routes.error_bodies import ErrorBodies
from router.routes.traced_work import trace_of
from router.transport.http_exchange import HttpExchange

MODERATIONS = "/v1/moderations"


class ModerationRoute:
    """Answers with the scores of the request's texts, and whether they are flagged."""

    def __init__(self, requests: ModerationRequests, tracer: Tracer, timeout_s: float) -> None:
        self._requests = requests
        self._tracer = tracer
        self._timeout_s = timeout_s

    def methods(self, path: str) -> Sequence[str] | None:
        return ("POST",) if path == MODERATIONS else None

    def error_body(self, refusal: RefusalError) -> str:
        return error_body(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Raises what ``ModerationRequests.run`` raises, TimeoutError and ClientLeftError."""
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        async with asyncio.timeout_at(ends_at):
            await exchange.while_connected(self._moderate(exchange, path, ends_at))

    async def _moderate(self, exchange: HttpExchange, path: str, ends_at: float) -> None:
        feature = exchange.header("x-manta-feature")
        credentials = exchange.header("authorization")
        call = Call(exchange.request_id, credentials, exchange.body, path, feature, ends_at=ends_at)
        with trace_of(self._tracer, call, exchange) as trace:
            model, results = await self._requests.run(replace(call, trace=trace), moderation_texts)
        await exchange.answer_text(200, moderation_body(uuid.uuid4().hex, model, results))
