"""``RouterOnRedis``: a router whose answer cache is in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from pathlib import Path

import httpx

from cluster.config import StateConfig
from cluster.safety.canary_key import CanaryKey
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_safety_store import RedisSafetyStore
from engine.api import Delta, GenerationRequest
from router.app_factory import build_app
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.ports.clock import SystemClock
from router.ports.tier_backend import OnPlaced, OnUsage
from router.review.review_wiring import ReviewService
from router.router_ports import CacheParts, RouterPorts
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.backend import ScriptedBackend
from tests.router.policies import Policies
from tests.safety.scripted_classifier import ScriptedClassifier

CHAT = "/v1/chat/completions"
BODY = {"model": "fast", "temperature": 0, "messages": [{"role": "user", "content": "What is a quark?"}]}
LEASE_S = 1.0


class SlowBackend(ScriptedBackend):
    """Takes its time: 0.3 s for an answer."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        async with aclosing(super().generate(tier, request, avoid, on_usage, account, on_placed)) as batches:
            async for batch in batches:
                await asyncio.sleep(0.05)
                yield batch


class RouterOnRedis:
    """A router with its own backend and connections, as a process has them. ``guarded``: with a guard whose policy asks
    for a canary token in system prompts."""

    def __init__(
        self, url: str, journal: Path, backend: ScriptedBackend | None = None, *, guarded: bool = False
    ) -> None:
        self.backend = backend or SlowBackend()
        state = StateConfig(
            journal=journal, timeout_s=1, background_timeout_s=2, max_faults=3, open_s=0.2, max_open_s=0.2
        )
        self.entries = RedisEntryStore(state, url)
        config = RouterConfig.model_validate(
            {
                "keys": (KeyConfig(key="sk-user", tenant="acme", team="core"),),
                "cache": {"enabled": True, "lease_s": LEASE_S},
            }
        )
        self.safety = RedisSafetyStore(state, url, audit_days=1)
        self.reviews = ReviewService(self.safety, config.review, SystemClock())
        policies = Policies()
        policies.set(prompt_canary="block", content_answers=None, deadline_s=10)
        guard = PolicyGuard(policies, Parts(ScriptedClassifier(), canary_key=CanaryKey(self.reviews.keys)))
        self.app = build_app(
            config,
            self.backend,
            RouterPorts(
                make_guard=(lambda oversight, store: guard) if guarded else None,
                reviews=self.reviews if guarded else None,
                cache=CacheParts(self.entries),
            ),
        )

    async def ask(self, **more: object) -> httpx.Response:
        headers = {"authorization": "Bearer sk-user"}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            return await http.post(CHAT, json={**BODY, **more})

    async def status(self) -> str:
        answer = await self.ask()
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(0.05)  # what is stored beside the request
        return str(answer.headers["x-manta-cache"])
