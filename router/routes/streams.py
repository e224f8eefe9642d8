"""``StreamRoute``: answers /v1/streams/ID with the rest of a detached stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import aclosing

from router.errors import InvalidRequestError, RefusalError
from router.inference_request import Call
from router.openai.errors import error_body
from router.requests.stream_requests import StreamRequests
from router.routes.error_bodies import ErrorBodies
from router.transport.http_exchange import HttpExchange

STREAMS = "/v1/streams"


class StreamRoute:
    """Answers with the events after that of the header last-event-id, or with all."""

    def __init__(self, requests: StreamRequests, timeout_s: float) -> None:
        self._requests = requests
        self._timeout_s = timeout_s

    def methods(self, path: str) -> Sequence[str] | None:
        return ("GET",) if path.startswith(STREAMS + "/") else None

    def error_body(self, refusal: RefusalError) -> str:
        return error_body(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Raises what ``StreamRequests.run`` raises, InvalidRequestError for a wrong header, and TimeoutError."""
        async with asyncio.timeout(self._timeout_s):
            await exchange.while_connected(self._resume(exchange, path.removeprefix(STREAMS + "/")))

    async def _resume(self, exchange: HttpExchange, stream_id: str) -> None:
        await exchange.body(0)
        last = exchange.header("last-event-id") or "0"
        if not re.fullmatch(r"[0-9]{1,9}", last):
            message = "The header last-event-id is not the id of an event."
            raise InvalidRequestError(message, "invalid_header", "last-event-id")
        call = Call(exchange.request_id, exchange.header("authorization"), exchange.body, STREAMS)
        # The id of the answer will do too: that of the stream after the format's prefix.
        async with aclosing(self._requests.run(call, stream_id.rpartition("-")[2], int(last))) as parts:
            await exchange.stream_numbered(parts)
