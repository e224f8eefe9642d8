"""``Router``: the deployment that is Serve's HTTP ingress, around the ASGI application of ``router.app``.

Serve runs the application's lifespan: its startup on the replica's event loop before the replica takes traffic, its
shutdown on the same loop once the last request has ended. The backend's ``start`` and ``close`` are called there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.config import PlacementConfig
from cluster.lanes.serve_replica_client import ServeReplicaClient
from cluster.serve_backend import ServeBackend
from router.app import build_app
from router.config import RouterConfig
from router.ports.tier_backend import TierDescription
from router.tiers.quality_forecast import Forecaster


@serve.ingress()
class Router:
    """Gateway and router in one actor. Every replica of it has a lane to every replica of every tier.

    ``tiers`` are in order of ability, weakest first; ``handles`` reach their deployments, by the tier's name.
    """

    def __init__(
        self,
        config: RouterConfig,
        placement: PlacementConfig,
        tiers: Sequence[TierDescription],
        handles: Mapping[str, DeploymentHandle[Any]],
        forecaster: Forecaster | None = None,
    ) -> None:
        self._config = config
        self._placement = placement
        self._tiers = tiers
        self._handles = handles
        self._forecaster = forecaster

    def __serve_build_asgi_app__(self) -> ASGIApp:
        clients = {name: ServeReplicaClient(handle) for name, handle in self._handles.items()}
        backend = ServeBackend(self._tiers, clients, self._placement)
        return without_root_path(without_request_id(build_app(self._config, backend, self._forecaster)))


def without_root_path(app: ASGIApp) -> ASGIApp:
    """``app`` below the application's ``route_prefix``, which Serve leaves at the start of every path."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if root_path := scope.get("root_path"):
            scope = {**scope, "path": scope["path"].removeprefix(root_path) or "/"}
        await app(scope, receive, send)

    return wrapped


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
