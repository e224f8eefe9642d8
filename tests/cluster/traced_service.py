"""A router with its tracer, guard and cache, and real replicas in this process, which send traces to a receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import uvicorn

from cluster.asgi_wrappers import with_logged_request
from cluster.config import PlacementConfig, TierConfig
from cluster.lanes.lane_messages import LaneItem
from cluster.lanes.replica_directory import ReplicaDirectory
from cluster.replica.tier_engine import make_engine
from cluster.replica.tier_replica import TierReplica
from cluster.serve_backend import ServeBackend
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.otel_tracer import OtelTracer
from engine.config import EngineConfig
from router.app_factory import build_app
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.memory_entry_store import MemoryEntryStore
from router.ports.answer_cache import SemanticIndex
from router.ports.clock import SystemClock
from router.ports.embedder import Embedder
from router.ports.tier_backend import TierDescription
from router.ports.trace_names import SpanName
from router.router_ports import CacheParts, RouterPorts
from safety.api import TextClassifier
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_source import ConfiguredPolicies
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import settle
from tests.cluster.otlp_receiver import Received
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.scripted_index import ScriptedIndex
from tests.router.stages import Stages
from tests.safety.scripted_classifier import ScriptedClassifier

FAST = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"
IN, OUT = "zanzibarmarker", "quokkamarker"
"""What is planted in prompts and answers, and must not come out."""
KEY = "sk-traces"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
OF_CALLS = {SpanName.CLASSIFY, SpanName.EMBED, SpanName.LOOKUP, SpanName.BATCH}
"""The spans of other actors than routers and replicas, which have stand-ins here."""
ROOMS = ["access", "prompt", "route", "limits", "safety", "cache", "answer"]


@dataclass
class Setup:
    """The settings of a service beside its telemetry: fields of the engine, the router and the safety policy. And its
    clients of other actors; None: stand-ins in its process."""

    engine: dict[str, Any] = field(default_factory=dict)
    router: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    classifier: TextClassifier | None = None
    embedder: Embedder | None = None
    semantic: SemanticIndex | None = None


class Replica:
    """A real replica with a real engine, in this process."""

    def __init__(self, config: TelemetryConfig, engine: Mapping[str, Any]) -> None:
        settings = {"model": str(FAST), "dtype": "float32", "threads": 1, **engine}
        tier = TierConfig(name="fast", engine=EngineConfig(**settings))
        self.actor = TierReplica(tier, make_engine, config)
        self.dead = False


class LosingClient(LocalClient):
    """Loses a replica, once, when the router has had the first tokens from it."""

    losing = False

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        async with aclosing(super().lane(replica_id, lane_id)) as items:
            async for item in items:
                if not (self.losing and item[1]):
                    yield item
                    continue
                self.losing = False
                load, rows, *others = item
                yield (load, rows[:1], *others)  # on a busy machine it may have the whole answer
                self.replicas[replica_id].dead = True


class Service:
    """A router and its replicas, which send their traces to a receiver."""

    def __init__(self, telemetry: TelemetryConfig, replicas: Mapping[str, Replica], setup: Setup) -> None:
        self.replicas = replicas
        self.client = LosingClient(cast("dict[str, LocalReplica]", dict(replicas)))
        backend = ServeBackend([TierDescription("fast", "fast")], {"fast": self.client}, PlacementConfig(wait_s=0))
        self.backend = backend
        self.tracer = OtelTracer(telemetry)
        policies = ConfiguredPolicies(SafetyPolicies(default=PolicyConfig.model_validate(setup.policy)))
        settings = {"keys": [KeyConfig(key=KEY, tenant="acme", team="core")], "cache": {"enabled": True}}
        config = RouterConfig.model_validate(settings | setup.router)
        entries = MemoryEntryStore(SystemClock())
        self.index = ScriptedIndex(entries)
        self.classifier = ScriptedClassifier()
        app = build_app(
            config,
            backend,
            RouterPorts(
                make_guard=lambda oversight, store: PolicyGuard(
                    policies, Parts(setup.classifier or self.classifier), oversight
                ),
                tracer=self.tracer,
                stages=Stages(),
                embedder=setup.embedder or FakeEmbedder(),
                cache=CacheParts(entries, setup.semantic or self.index),
            ),
        )
        self.app = with_logged_request(app)

    async def ask(self, headers: Mapping[str, str] = {}, **fields: Any) -> httpx.Response:
        """A chat request, whose prompt and answer have markers."""
        body = {
            "model": "fast",
            "messages": [{"role": "user", "content": f"Say {IN}."}],
            "guided_choice": [OUT],
            "max_tokens": 40,
            **fields,
        }
        return await self.post("/v1/chat/completions", body, headers)

    async def post(self, path: str, body: Mapping[str, object], headers: Mapping[str, str] = {}) -> httpx.Response:
        """Any request."""
        transport = httpx.ASGITransport(self.app)
        headers = {"authorization": f"Bearer {KEY}", **headers}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            return await http.post(path, json=body, timeout=60)

    def export(self) -> None:
        """Has all that has ended sent."""
        self.tracer.close()
        for replica in self.replicas.values():
            assert replica.actor._tracer is not None
            replica.actor._tracer.close()


@asynccontextmanager
async def service(
    received: Received, names: str = "a", setup: Setup | None = None, **settings: Any
) -> AsyncIterator[Service]:
    setup = setup or Setup()
    telemetry = TelemetryConfig.model_validate({"endpoint": received.endpoint, "sample_ratio": 1.0, **settings})
    running = Service(telemetry, {name: Replica(telemetry, setup.engine) for name in names}, setup)
    await running.backend.start(lambda _: None)
    ReplicaDirectory.publish("fast", frozenset(names))
    await settle()
    try:
        yield running
    finally:
        await running.backend.close()
        ReplicaDirectory.publish("fast", frozenset())
        for replica in running.replicas.values():
            replica.actor.__del__()


@asynccontextmanager
async def listening(running: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service behind a real HTTP server."""
    server = uvicorn.Server(uvicorn.Config(running.app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield http
    finally:
        server.should_exit = True
        await serving


def text_of(answer: httpx.Response) -> str:
    """The text of a streamed answer."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)
