"""``Speculating``: a router whose tenant lets the engine begin to answer beside the checks, which the test holds."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httpx

from engine.api import Delta, GenerationRequest
from router.app_factory import build_app
from router.config.failover import FailoverConfig
from router.config.keys import KeyConfig
from router.config.limits import LimitsConfig
from router.config.router import RouterConfig
from router.memory_entry_store import MemoryEntryStore
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.tier_backend import OnPlaced, OnUsage, TierUnavailableError
from router.ports.usage_metrics import AdmissionSample, NoUsageMetrics
from router.router_ports import CacheParts, RouterPorts
from safety.api import Scores
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.backend import ScriptedBackend
from tests.router.cached import Counted
from tests.router.guarded import CHAT, TEXT
from tests.router.policies import Policies
from tests.router.scripted_index import ScriptedIndex
from tests.router.served import KEY
from tests.safety.scripted_classifier import ScriptedClassifier

WAIT_S = 5.0  # for what must happen; a test that fails waits for it


class HeldClassifier(ScriptedClassifier):
    """Answers only while ``goes_on`` is set. ``asked`` is set when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        self.asked.set()
        await self.goes_on.wait()
        return await super().classify(texts, tenant, urgent=urgent)


class WatchedBackend(ScriptedBackend):
    """``began`` is set when an answer has begun. The first ``refused`` calls fail."""

    refused: int = 0
    refusal: Exception = TierUnavailableError("full")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.began = asyncio.Event()

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        self.began.set()
        if self.refused:
            self.refused -= 1
            self.closed += 1
            self.requests.append(request)
            raise self.refusal
        async for deltas in super().generate(tier, request, avoid, on_usage, account, on_placed):
            yield deltas


class CountedUsage(NoUsageMetrics):
    """Counts what became of answers that were begun, and keeps what the admission knows."""

    def __init__(self) -> None:
        self.speculations: Counter[str] = Counter()
        self.waiting: list[int] = []  # requests without a first token, at each decision of the admission

    def admission(self, sample: AdmissionSample) -> None:
        self.waiting.append(sample.waiting)

    def speculation(self, tier: str, outcome: str) -> None:
        self.speculations[outcome] += 1


class Speculating:
    """A router whose tenant lets the engine begin beside the checks, which wait until the test lets them go on."""

    def __init__(
        self,
        cached: bool = False,
        tokens_per_minute: int = 10_000,
        overflow: Mapping[str, Any] = MappingProxyType({}),
        **policy: Any,
    ) -> None:
        self.classifier, self.policies = HeldClassifier(), Policies()
        self.policies.set(**{"speculative_generation": True, "deadline_s": 30, **policy})
        self.backend = WatchedBackend()
        self.store, self.metrics, clock = MemoryStore(SystemClock()), CountedUsage(), SystemClock()
        entries = MemoryEntryStore(clock)
        cache = CacheParts(entries, ScriptedIndex(entries), Counted())
        config = RouterConfig.model_validate(
            {
                "keys": [
                    KeyConfig(
                        key=KEY, tenant="acme", team="core", limits=LimitsConfig(tokens_per_minute=tokens_per_minute)
                    )
                ],
                "failover": FailoverConfig(max_attempts=1),
                "cache": {"enabled": cached},
                "prompts": {"overflow": dict(overflow)},
            }
        )
        ports = RouterPorts(
            store=self.store,
            make_guard=lambda oversight, store: PolicyGuard(self.policies, Parts(self.classifier)),
            cache=cache if cached else None,
            metrics=self.metrics,
        )
        self.app = build_app(config, self.backend, ports)

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            return await http.post(path, json={"model": "fast", **body})

    def ask(self, text: str = "Hi", path: str = CHAT, **more: Any) -> asyncio.Task[httpx.Response]:
        """Asks a question. Its checks wait."""
        body = {"prompt": text} if path == TEXT else {"messages": [{"role": "user", "content": text}]}
        return asyncio.create_task(self.post(path, {**body, **more}))

    async def both_under_way(self) -> None:
        """Returns when the engine has begun, and the classifier was asked."""
        await asyncio.wait_for(self.backend.began.wait(), WAIT_S)
        await asyncio.wait_for(self.classifier.asked.wait(), WAIT_S)

    async def settled(self, asked: asyncio.Task[httpx.Response]) -> httpx.Response:
        """Lets the checks go on, and returns the answer."""
        await self.both_under_way()
        self.classifier.goes_on.set()
        answer = await asyncio.wait_for(asked, WAIT_S)
        await self.until(lambda: self.backend.closed == len(self.backend.requests))
        return answer

    async def until(self, holds: Any) -> None:
        for _ in range(500):
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come to that")

    async def entry(self) -> dict[str, Any]:
        """The only entry in the ledger."""
        await self.until(lambda: self.store._entries)
        (entry,) = self.store._entries.values()
        return dict(json.loads(entry.document))
