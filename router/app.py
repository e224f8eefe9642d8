"""``App``: the ASGI application. It finds the route of a request, and starts and stops the router's parts."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from router.config.router import RouterConfig
from router.errors import (
    DeadlineExceededError,
    LimitExceededError,
    MethodNotAllowedError,
    NotFoundError,
    RefusalError,
    RefusalKind,
    refusal_of,
)
from router.openai.errors import error_body
from router.openai.rate_limit_headers import rate_limit_headers
from router.router_parts import RouterParts
from router.routes.error_bodies import ErrorBodies
from router.routes.route import Route
from router.transport.cross_origin import CrossOrigin
from router.transport.http_exchange import ClientLeftError, HttpExchange
from router.transport.printable import printable

logger = logging.getLogger(__name__)


class App:
    """The ASGI application. It uses no web framework: it has few paths, and every layer would cost time per token.

    ``routes`` are asked in their order. ``parts`` are started before the first request and closed after the last.
    """

    def __init__(self, routes: Sequence[Route], config: RouterConfig, parts: RouterParts) -> None:
        self.routes = routes
        self.parts = parts
        self._warn_at = config.limits.warn_at
        self._body_timeout_s = config.body_timeout_s
        self._keep_alive_s = config.stream_keep_alive_s
        self._cross_origin = CrossOrigin(config.cors.allowed_origins, config.cors.max_age_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        return await self._answer(HttpExchange(scope, receive, send, self._body_timeout_s, self._keep_alive_s))

    async def _answer(self, exchange: HttpExchange) -> None:
        """Answers the request, with an error in the wire format of its path where it fails."""
        path = exchange.path.rstrip("/")
        route, methods = self._route(path)
        errors = ErrorBodies(error_body if route is None else route.error_body)
        exchange.headers += self._cross_origin.response_headers(exchange.header("origin"))
        try:
            if route is None:
                message = f"Unknown request URL: {exchange.method} {printable(exchange.path)}."
                raise NotFoundError(message, "unknown_url")
            if exchange.method == "OPTIONS" and (allowed := self._preflight(exchange, methods)) is not None:
                return await exchange.answer_empty(allowed)
            _expect(exchange, methods)
            await route.answer(exchange, path, errors)
        except ClientLeftError:
            logger.info("request %s: the client left", exchange.request_id)
        except asyncio.CancelledError:
            # Ray Serve ends a request by cancelling its task. Without this an open stream would just break off.
            cut = DeadlineExceededError("The request was ended by the server.", "request_cancelled")
            await exchange.fail(cut, errors.body(cut))
            raise
        except Exception as error:  # noqa: BLE001 the outermost handler: every error gets a body in the wire format
            await self._fail(exchange, error, errors)

    async def _fail(self, exchange: HttpExchange, error: Exception, errors: ErrorBodies) -> None:
        """Answers a request that has failed. It is a method of its own since ``refusal`` often is ``error``: a frame
        that is in an error's traceback and holds the error is garbage that only the collector finds, and so is all that
        the request was."""
        refusal = refusal_of(error)
        _log(exchange, error, refusal)
        self._add_refusal_headers(exchange, refusal)
        await exchange.fail(refusal, errors.body(refusal))

    def _route(self, path: str) -> tuple[Route | None, Sequence[str]]:
        """Returns the route of ``path`` and the methods that it allows; None: there is none."""
        for route in self.routes:
            if (methods := route.methods(path)) is not None:
                return route, methods
        return None, ()

    def _preflight(self, exchange: HttpExchange, methods: Sequence[str]) -> list[tuple[bytes, bytes]] | None:
        """Returns the headers of the response to a browser's preflight, which has no key; None: it is none, or is not
        allowed."""
        origin, method = exchange.header("origin"), exchange.header("access-control-request-method")
        asked = exchange.joined("access-control-request-headers") or None
        return self._cross_origin.preflight_headers(origin, method, asked, methods)

    def _add_refusal_headers(self, exchange: HttpExchange, refusal: RefusalError) -> None:
        if isinstance(refusal, LimitExceededError):
            exchange.headers += rate_limit_headers(refusal.decision, self._warn_at)
        if refusal.refused is not None:
            exchange.headers.append((b"x-manta-refused", refusal.refused.encode("ascii", "replace")))
        if refusal.safety is not None:
            exchange.headers.append((b"x-manta-safety", refusal.safety.encode()))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Implements ASGI's lifespan: starts the parts before the first request, and closes them after the last."""
        while True:
            message = await receive()
            stopping = message["type"] == "lifespan.shutdown"
            await (self.parts.close() if stopping else self.parts.start())
            await send({"type": f"{message['type']}.complete"})
            if stopping:
                return


def _log(exchange: HttpExchange, error: Exception, refusal: RefusalError) -> None:
    """Logs errors of the service. Internal ones have a traceback, but not their message, which may quote a prompt."""
    if refusal.kind is RefusalKind.INTERNAL:
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("request %s failed: %s, %s\n%s", exchange.request_id, refusal.code, type(error).__name__, frames)
    elif refusal.kind is RefusalKind.UNAVAILABLE:
        logger.warning("request %s failed: %s", exchange.request_id, refusal.code)


def _expect(exchange: HttpExchange, methods: Sequence[str]) -> None:
    """Raises MethodNotAllowedError, with the header ``allow``, unless the request has one of ``methods``."""
    if exchange.method not in methods:
        exchange.headers.append((b"allow", ", ".join(methods).encode()))
        message = f"Not allowed to {exchange.method} on {printable(exchange.path)}."
        raise MethodNotAllowedError(message, "method_not_allowed")
