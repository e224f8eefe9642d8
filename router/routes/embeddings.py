"""``EmbeddingRoute``: answers /v1/embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from router.embedding_request import EmbeddingAccepted, EmbeddingResult
from router.errors import RefusalError
from router.inference_request import Call
from router.openai.embeddings import embedding_request, embeddings_body
from router.openai.errors import error_body
from router.openai.rate_limit_headers import rate_limit_headers
from router.ports.tracer import Tracer
from router.requests.embedding_requests import EmbeddingRequests
from router.routes.error_bodies import ErrorBodies
from router.routes.traced_work import traced
from router.transport.http_exchange import HttpExchange

EMBEDDINGS = "/v1/embeddings"


class EmbeddingRoute:
    """Answers with the vectors of the request's texts. ``warn_at`` is the share of a limit from which headers warn."""

    def __init__(self, requests: EmbeddingRequests, tracer: Tracer, timeout_s: float, warn_at: float) -> None:
        self._requests = requests
        self._tracer = tracer
        self._timeout_s = timeout_s
        self._warn_at = warn_at

    def methods(self, path: str) -> Sequence[str] | None:
        return ("POST",) if path == EMBEDDINGS else None

    def error_body(self, refusal: RefusalError) -> str:
        return error_body(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Raises what ``EmbeddingRequests.run`` raises, TimeoutError and ClientLeftError."""
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        async with asyncio.timeout_at(ends_at):
            await self._embed(exchange, path, ends_at)

    async def _embed(self, exchange: HttpExchange, path: str, ends_at: float) -> None:
        feature = exchange.header("x-manta-feature")
        credentials = exchange.header("authorization")
        call = Call(exchange.request_id, credentials, exchange.body, path, feature, ends_at=ends_at)
        embed = partial(self._requests.run, parse=embedding_request)
        async with aclosing(traced(self._tracer, call, embed, exchange)) as steps:
            accepted = await exchange.while_connected(anext(steps))  # it may wait for a reviewer
            assert isinstance(accepted, EmbeddingAccepted), "the first step is EmbeddingAccepted"
            exchange.headers.append((b"x-manta-safety", accepted.safety.encode()))
            if accepted.limits is not None:
                exchange.headers += rate_limit_headers(accepted.limits, self._warn_at)
            if exchange.header("idempotency-key") is not None:  # a repeated request is computed and billed again
                exchange.headers.append((b"x-manta-ignored", b"idempotency-key"))
            result = await exchange.while_connected(anext(steps))
            assert isinstance(result, EmbeddingResult), "the second step is the result"
            await anext(steps, None)  # its end, which is that of its trace
        await exchange.answer_text(200, await asyncio.to_thread(embeddings_body, result))
