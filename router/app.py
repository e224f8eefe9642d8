"""The ASGI application: paths to rooms. Everything it answers, errors included, is in OpenAI's shape."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from router.config import RouterConfig
from router.openai.chat import ChatFormat
from router.openai.completions import CompletionFormat
from router.openai.errors import ApiError, MethodError, NotFoundError, ServerError, TimedOutError, translate
from router.openai.models import model_fields, model_list
from router.pipeline import Pipeline
from router.ports.tiers import TierBackend
from router.tiers.choose import AUTO
from router.tiers.forecast import Forecaster
from router.transport.http import ClientLeftError, Exchange

logger = logging.getLogger(__name__)

MODELS = "/v1/models"


def build_app(config: RouterConfig, backend: TierBackend, forecaster: Forecaster | None = None) -> ASGIApp:
    """The application that serves ``backend``'s tiers by ``config``; ``forecaster``, if any, chooses for ``auto``."""
    return App(config, backend, forecaster)


class App:
    """Paths to rooms, as a plain ASGI application.

    Not a framework's router: there are five paths, and on the hot path each layer in between would cost more than it
    does.
    """

    def __init__(self, config: RouterConfig, backend: TierBackend, forecaster: Forecaster | None) -> None:
        self._pipeline = Pipeline(config, backend, forecaster)
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        exchange = Exchange(scope, receive, send)
        try:
            await self._route(exchange)
        except ClientLeftError:
            logger.info("request %s: the client left", exchange.request_id)
        except asyncio.CancelledError:
            # Serve cuts requests by cancelling them, silently if the stream has begun.
            await exchange.fail(TimedOutError("The request was ended by the server.", "request_cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 the outermost handler: no request may end in a bare 500
            answer = translate(error)
            _log(exchange, error, answer)
            await exchange.fail(answer)

    async def _route(self, exchange: Exchange) -> None:
        path = exchange.path.rstrip("/")
        if path == "/v1/chat/completions":
            _expect(exchange, "POST")
            await self._pipeline.serve(exchange, ChatFormat())
        elif path == "/v1/completions":
            _expect(exchange, "POST")
            await self._pipeline.serve(exchange, CompletionFormat())
        elif path == "/healthz":
            _expect(exchange, "GET", "HEAD")
            await self._health(exchange)
        elif path == MODELS or path.startswith(MODELS + "/"):
            _expect(exchange, "GET", "HEAD")
            self._pipeline.keys.authenticate(exchange.header("authorization"))
            await exchange.answer(200, self._models(path.removeprefix(MODELS).removeprefix("/")))
        else:
            raise NotFoundError(f"Unknown request URL: {exchange.method} {_plain(exchange.path)}.", "unknown_url")

    async def _health(self, exchange: Exchange) -> None:
        """200 only when every tier is ready."""
        tiers = self._pipeline.backend.status()
        ready = bool(tiers) and all(tier.ready for tier in tiers)
        document = {
            "status": "ready" if ready else "starting",
            "tiers": {tier.name: {"ready": tier.ready, "replicas": tier.replicas} for tier in tiers},
        }
        await exchange.answer(200 if ready else 503, document)

    def _models(self, name: str) -> dict[str, Any]:
        models = [*(tier.name for tier in self._pipeline.backend.status()), AUTO]
        if not name:
            return model_list(models, self._created)
        if name not in models:
            raise NotFoundError(f"The model '{_plain(name)}' does not exist.", "model_not_found", "model")
        return model_fields(name, self._created)


def _log(exchange: Exchange, error: Exception, answer: ApiError) -> None:
    """Our own faults, with where they come from but without their messages: those may quote a prompt."""
    if isinstance(answer, ServerError):
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("request %s failed: %s, %s\n%s", exchange.request_id, answer.code, type(error).__name__, frames)
    elif answer.status >= 500:
        logger.warning("request %s failed: %s", exchange.request_id, answer.code)


def _expect(exchange: Exchange, *methods: str) -> None:
    if exchange.method not in methods:
        exchange.headers.append((b"allow", ", ".join(methods).encode()))
        raise MethodError(f"Not allowed to {exchange.method} on {_plain(exchange.path)}.", "method_not_allowed")


def _plain(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:128]


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop: the backend belongs to the actor around this application."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
