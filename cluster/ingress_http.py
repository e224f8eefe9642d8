"""The deployment ``Router``: Serve's HTTP ingress around the application of ``router.app``."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.config import PlacementConfig
from cluster.serve_backend import ServeBackend
from router.app import build_app
from router.config import RouterConfig
from router.tiers.forecast import Forecaster


@serve.ingress()
class Router:
    """Gateway and router in one actor. Every replica has a lane to every replica of every tier."""

    def __init__(
        self,
        config: RouterConfig,
        placement: PlacementConfig,
        tiers: dict[str, DeploymentHandle[Any]],
        forecaster: Forecaster | None = None,
    ) -> None:
        self._config = config
        self._forecaster = forecaster
        self._backend = ServeBackend(tiers, placement)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return without_request_id(build_app(self._config, self._backend, self._forecaster))


def without_request_id(app: ASGIApp) -> ASGIApp:
    """``app`` without the header x-request-id on its answers: Serve adds its own, and clients would join the two."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, send_without)

    return wrapped
