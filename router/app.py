"""The ASGI application: paths to rooms. Everything it answers, errors included, is in OpenAI's shape."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from router.config import RouterConfig
from router.exchange import Exchange
from router.openai.chat import ChatFormat
from router.openai.completions import CompletionFormat
from router.openai.errors import ApiError, MethodError, NotFoundError
from router.pipeline import Pipeline
from router.ports import TierBackend
from router.tiers.choice import AUTO

MODELS = "/v1/models"


def build_app(config: RouterConfig, backend: TierBackend) -> ASGIApp:
    """The application that serves ``backend``'s tiers by ``config``."""
    return App(config, backend)


class App:
    """Paths to rooms, as a plain ASGI application.

    Not a framework's router: there are five paths, and on the hot path each layer in between would cost more than it
    does.
    """

    def __init__(self, config: RouterConfig, backend: TierBackend) -> None:
        self._pipeline = Pipeline(config, backend)
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        exchange = Exchange(scope, receive, send)
        try:
            await self._route(exchange)
        except ApiError as error:
            await exchange.fail(error)

    async def _route(self, exchange: Exchange) -> None:
        path = exchange.path.rstrip("/")
        if path == "/v1/chat/completions":
            _expect(exchange, "POST")
            await self._pipeline.serve(exchange, ChatFormat())
        elif path == "/v1/completions":
            _expect(exchange, "POST")
            await self._pipeline.serve(exchange, CompletionFormat())
        elif path == "/healthz":
            _expect(exchange, "GET")
            await self._health(exchange)
        elif path == MODELS or path.startswith(MODELS + "/"):
            _expect(exchange, "GET")
            self._pipeline.keys.authenticate(exchange.header("authorization"))
            await exchange.answer(200, self._models(path.removeprefix(MODELS).removeprefix("/")))
        else:
            raise NotFoundError(f"Unknown request URL: {exchange.method} {_plain(exchange.path)}.", "unknown_url")

    async def _health(self, exchange: Exchange) -> None:
        """200 only when every tier is ready."""
        tiers = self._pipeline.backend.status()
        ready = all(tier.ready for tier in tiers)
        document = {
            "status": "ready" if ready else "starting",
            "tiers": {tier.name: {"ready": tier.ready, "replicas": tier.replicas} for tier in tiers},
        }
        await exchange.answer(200 if ready else 503, document)

    def _models(self, name: str) -> dict[str, Any]:
        models = {
            model: {"id": model, "object": "model", "created": self._created, "owned_by": "manta"}
            for model in [*(tier.name for tier in self._pipeline.backend.status()), AUTO]
        }
        if not name:
            return {"object": "list", "data": list(models.values())}
        if name not in models:
            raise NotFoundError(f"The model '{_plain(name)}' does not exist.", "model_not_found", "model")
        return models[name]


def _expect(exchange: Exchange, method: str) -> None:
    if exchange.method != method:
        exchange.headers.append((b"allow", method.encode()))
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
