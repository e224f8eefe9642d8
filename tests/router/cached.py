"""``Cached``: a router with an answer cache, on a scripted backend, a virtual clock, and a scripted semantic index."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx

from router.app_factory import build_app
from router.config.keys import KeyConfig, Role
from router.config.router import RouterConfig
from router.memory_entry_store import MemoryEntryStore
from router.memory_safety_store import MemorySafetyStore
from router.memory_store import MemoryStore
from router.review.review_wiring import ReviewService
from router.router_ports import CacheParts, RouterPorts
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.backend import ScriptedBackend
from tests.router.policies import Policies
from tests.router.scripted_index import ScriptedIndex
from tests.safety.scripted_classifier import ScriptedClassifier
from tests.state.clock import VirtualClock

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
KEYS = (
    KeyConfig(key="sk-user", tenant="acme", team="core"),
    KeyConfig(key="sk-other", tenant="other", team="core"),
    KeyConfig(key="sk-viewer", tenant="acme", team="core", role=Role.VIEWER),
    KeyConfig(key="sk-admin", tenant="ops", team="core", role=Role.ADMIN),
)
PRICES = {"version": "1", "tiers": {name: {"input": 1.0, "output": 4.0} for name in ("fast", "balanced", "frontier")}}


class Counted:
    """Remembers what was counted. Implements ``CacheMetrics``."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()

    def asked(self, tenant: str, status: str, reason: str) -> None:
        self.counts["asked", tenant, status, reason] += 1

    def stored(self, tenant: str) -> None:
        self.counts["stored", tenant] += 1

    def unstored(self, tenant: str, reason: str) -> None:
        self.counts["unstored", tenant, reason] += 1

    def poisoned(self) -> None:
        self.counts[("poisoned",)] += 1

    def judged(self, tenant: str, judge: str, *, wrong: bool) -> None:
        self.counts["judged", tenant, judge, str(wrong)] += 1


class Cached:
    """A router with an answer cache. ``cache`` are settings of it."""

    def __init__(
        self,
        *,
        guarded: bool = False,
        store: MemoryEntryStore | None = None,
        backend: ScriptedBackend | None = None,
        request_timeout_s: float = 600,
        **cache: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.backend = backend or ScriptedBackend()
        self.entries = store or MemoryEntryStore(self.clock)
        self.index = ScriptedIndex(self.entries)
        self.ledger = MemoryStore(self.clock)
        self.metrics = Counted()
        self.policies, self.classifier = Policies(), ScriptedClassifier()
        self.safety = MemorySafetyStore(self.clock)
        guard = PolicyGuard(self.policies, Parts(self.classifier))
        settings = {"enabled": True, "shadow_share": 0.0, **cache}
        config = RouterConfig.model_validate(
            {"keys": KEYS, "prices": PRICES, "cache": settings, "request_timeout_s": request_timeout_s}
        )
        self.app = build_app(
            config,
            self.backend,
            RouterPorts(
                clock=self.clock,
                store=self.ledger,
                make_guard=(lambda oversight, store: guard) if guarded else None,
                reviews=ReviewService(self.safety, config.review, self.clock),
                cache=CacheParts(self.entries, self.index, self.metrics),
            ),
        )

    async def post(self, path: str, body: dict[str, Any], key: str = "sk-user", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        sent = {"authorization": f"Bearer {key}", **headers}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=sent) as http:
            answer = await http.post(path, json=body)
        await asyncio.sleep(0.01)  # what is stored beside the request
        return answer

    async def ask(self, text: str = "What is a quark?", key: str = "sk-user", **more: Any) -> httpx.Response:
        """Asks a question, greedily by default. Fields that are None are left out."""
        body = {"model": "fast", "temperature": 0, "messages": [{"role": "user", "content": text}], **more}
        return await self.post(CHAT, {name: value for name, value in body.items() if value is not None}, key)

    async def status(self, text: str = "What is a quark?", key: str = "sk-user", **more: Any) -> str:
        answer = await self.ask(text, key, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["x-manta-cache"])

    def documents(self) -> list[dict[str, Any]]:
        """The ledger's documents, in order."""
        return [json.loads(entry.document) for entry in self.ledger._entries.values()]


def text_of(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])
