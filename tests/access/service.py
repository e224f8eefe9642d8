"""A router in this process with created keys, over a scripted backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import Message

from router.admin.overview_api import OverviewSources
from router.app_factory import build_app
from router.config.keys import KeyConfig, Role
from router.config.router import RouterConfig
from router.memory_safety_store import MemorySafetyStore
from router.memory_store import MemoryStore
from router.ports.clock import Clock
from router.ports.jwks_source import JwksSource
from router.ports.tier_backend import TierBackend
from router.ports.tier_scaling import TierScaling
from router.ports.usage_metrics import UsageMetrics
from router.review.review_wiring import ReviewService
from router.router_ports import RouterPorts
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_source import ConfiguredPolicies
from tests.router.backend import ScriptedBackend
from tests.safety.scripted_classifier import ScriptedClassifier
from tests.state.clock import VirtualClock

ADMIN = "sk-test-admin"
PRICES = {
    "version": "2026-11",
    "tiers": {
        "fast": {"input": 1.0, "cached_input": 0.25, "output": 4.0},
        "balanced": {"input": 2.0, "output": 8.0},
        "frontier": {"input": 4.0, "output": 16.0},
    },
}


def config(**settings: object) -> RouterConfig:
    keys = (
        KeyConfig(key=ADMIN, tenant="ops", team="core", role=Role.ADMIN),
        KeyConfig(key="sk-user", tenant="acme", team="core"),
        KeyConfig(key="sk-viewer", tenant="acme", team="core", role=Role.VIEWER),
        KeyConfig(key="sk-other", tenant="other", team="core"),
    )
    failover = {"max_attempts": 1}  # the scripted backend does not continue answers
    return RouterConfig.model_validate({"keys": keys, "prices": PRICES, "failover": failover} | settings)


class Service:
    """The router as an ASGI application. Its parts that a test moves are attributes."""

    def __init__(
        self,
        settings: RouterConfig | None = None,
        backend: TierBackend | None = None,
        clock: Clock | None = None,
        jwks: JwksSource | None = None,
        metrics: UsageMetrics | None = None,
        safety_store: MemorySafetyStore | None = None,
        policy: PolicyConfig | None = None,
        scaling: TierScaling | None = None,
        overview: OverviewSources | None = None,
    ) -> None:
        self.virtual = VirtualClock()
        self.clock = clock or self.virtual
        self.store = MemoryStore(self.clock)
        self.safety_store = safety_store or MemorySafetyStore(self.clock)
        self.backend = backend or ScriptedBackend()
        settings = settings or config()
        self.reviews = ReviewService(self.safety_store, settings.review, self.clock)
        self.oversight = self.reviews.oversight
        guard = None
        if policy is not None:
            policies = ConfiguredPolicies(SafetyPolicies(default=policy))
            guard = PolicyGuard(policies, Parts(ScriptedClassifier()), self.oversight)
        self.app = build_app(
            settings,
            self.backend,
            RouterPorts(
                clock=self.clock,
                store=self.store,
                jwks=jwks,
                make_guard=None if guard is None else lambda oversight, store: guard,
                metrics=metrics,
                reviews=self.reviews,
                scaling=scaling,
                overview=overview,
            ),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts the application by ASGI's lifespan, and ends it."""
        messages: asyncio.Queue[Message] = asyncio.Queue()
        sent: asyncio.Queue[Message] = asyncio.Queue()
        running = self.app({"type": "lifespan"}, messages.get, sent.put)
        task = asyncio.ensure_future(running)
        messages.put_nowait({"type": "lifespan.startup"})
        assert (await sent.get())["type"] == "lifespan.startup.complete"
        yield
        messages.put_nowait({"type": "lifespan.shutdown"})
        await task

    def client(self, key: str | None = ADMIN, **headers: str) -> httpx.AsyncClient:
        """A client that sends ``key``."""
        sent = headers if key is None else {"authorization": f"Bearer {key}", **headers}
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=sent)

    async def create(self, **fields: Any) -> dict[str, Any]:
        """Creates a key and returns its document."""
        async with self.client() as http:
            answer = await http.post("/admin/v1/keys", json={"tenant": "acme", "team": "core"} | fields)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def ask(self, key: str | None, path: str = "/v1/completions", **fields: Any) -> httpx.Response:
        """Sends an inference request. Fields that are None are left out."""
        body = {"model": "fast", "prompt": "Hi"} | fields
        body = {name: value for name, value in body.items() if value is not None}
        async with self.client(key) as http:
            return await http.post(path, json=body)
