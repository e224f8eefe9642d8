"""The ingress's application through its life, driven as Serve drives it: startup, requests, shutdown."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.asgi_wrappers import without_request_id, without_root_path
from cluster.config import PlacementConfig
from cluster.lanes.replica_directory import ReplicaDirectory
from cluster.serve_backend import ServeBackend
from router.app_factory import build_app
from router.config.router import RouterConfig
from router.ports.tier_backend import TierDescription
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import settle

CONFIG = RouterConfig.model_validate({"keys": [{"key": "sk-1", "tenant": "t", "team": "t"}], "auto": None})
HEADERS = {"authorization": "Bearer sk-1"}
BODY = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


class Lifespan:
    """Both ends of an application's life, as an ASGI server runs them: one task for all of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.ensure_future(app({"type": "lifespan"}, self._inbox.get, self._outbox.put))

    async def send(self, event: str) -> str:
        """What the application answers to ``event``."""
        await self._inbox.put({"type": f"lifespan.{event}"})
        answer: str = (await self._outbox.get())["type"]
        return answer

    async def end(self) -> None:
        await asyncio.wait_for(self._task, 5)


async def post(app: ASGIApp, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://manta") as client:
        return await client.post("/v1/chat/completions", json=body, headers=HEADERS)


async def test_the_replica_sees_its_lane_close_when_the_application_ends() -> None:
    replica = LocalReplica()
    backend = ServeBackend(
        [TierDescription("small", "model-s")], {"small": LocalClient({"a": replica})}, PlacementConfig(wait_s=0)
    )
    app = without_root_path(without_request_id(build_app(CONFIG, backend)))
    assert (await post(app, BODY)).status_code == 503  # not started: no replica is known

    life = Lifespan(app)
    assert await life.send("startup") == "lifespan.startup.complete"
    ReplicaDirectory.publish("small", frozenset({"a"}))
    await settle()
    answering = asyncio.ensure_future(post(app, BODY))
    for _ in range(3):
        await settle()
    assert len(replica.engine.live) == 1
    for _ in range(2):
        replica.engine.step()
        await settle()
    response = await answering
    assert response.json()["choices"][0]["message"]["content"] == "0 1 "
    assert "x-request-id" not in response.headers

    assert len(replica.actor._registry._outboxes) == 1
    assert await life.send("shutdown") == "lifespan.shutdown.complete"
    await life.end()
    assert replica.actor._registry._outboxes == {}
    ReplicaDirectory.publish("small", frozenset())


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ({"path": "/v1/models"}, "/v1/models"),
        ({"path": "/v1/models", "root_path": ""}, "/v1/models"),
        ({"path": "/manta/v1/models", "root_path": "/manta"}, "/v1/models"),
        ({"path": "/manta", "root_path": "/manta"}, "/"),
        ({"path": "/v1/manta", "root_path": "/manta"}, "/v1/manta"),
    ],
)
async def test_the_application_sees_paths_below_its_route_prefix(scope: dict[str, Any], path: str) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    await without_root_path(app)({"type": "http", **scope}, receive, send)
    assert seen == [path]
