"""The smallest Serve application that the launcher can wait for: an ingress with ``/healthz`` and one deployment."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.deployment import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response


class Greeter:
    async def greet(self) -> str:
        return "hello"


class Front:
    def __init__(self, greeter: DeploymentHandle[Any]) -> None:
        self._greeter = greeter

    async def __call__(self, request: Request) -> Response:
        return PlainTextResponse(await self._greeter.greet.remote())


def build(args: dict[str, Any]) -> Application:
    if args.get("broken"):
        raise ValueError("this application is broken on purpose")
    deployed = serve.deployment(ray_actor_options={"num_cpus": 0})
    application: Application = deployed(Front).bind(deployed(Greeter).bind())
    return application
