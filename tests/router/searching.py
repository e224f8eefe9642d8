"""``Searching``: a router that searches passages, whose tenant and key have limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from router.config.failover import FailoverConfig
from router.config.keys import KeyConfig
from router.config.limits import LimitPolicy, LimitsConfig
from router.config.retrieval import RetrievalConfig
from router.config.router import RouterConfig
from router.config.tenants import TenantConfig
from router.ports.embedder import Embedded
from router.ports.limit_store import LimitDecision, LimitName, Reservation
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.fallible_store import FallibleStore
from tests.router.served import KEY, Served

CHAT = "/v1/chat/completions"
DOCUMENTS = [{"text": "The harbour is north of the town. " * 12}, {"text": "The museum opens at nine. " * 12}]
BODY: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Where is it?"}], "max_tokens": 10}


class HeldEmbedder(FakeEmbedder):
    """Waits until ``free`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        made = await super().embed(texts, tenant)
        await asyncio.to_thread(self.free.wait)
        return made


class HoldingStore(FallibleStore):
    """Makes each reservation, and does not answer the second of a request."""

    def __init__(self) -> None:
        super().__init__()
        self.charges: list[tuple[str, int]] = []

    async def reserve(self, reservation: Reservation, lease_ms: int) -> LimitDecision:
        decision = await super().reserve(reservation, lease_ms)
        self.charges.append((reservation.id, reservation.charge.tokens))
        if len(self.charges) == 2:
            await asyncio.sleep(60)
        return decision


class Searching:
    """A router with an embedder, whose tenant and key have limits."""

    def __init__(
        self,
        tenant: LimitsConfig | None = None,
        key: LimitsConfig | None = None,
        embedder: FakeEmbedder | None = None,
        policy: LimitPolicy | None = None,
        store: FallibleStore | None = None,
        tiers: tuple[str, ...] = ("fast",),
        **changes: Any,
    ) -> None:
        self.embedder = embedder or FakeEmbedder()
        self.store = store or FallibleStore()
        config = RouterConfig(
            keys=(KeyConfig(key=KEY, tenant="acme", team="core", limits=key or LimitsConfig(), tiers=tiers),),
            tenants={"acme": TenantConfig(limits=tenant or LimitsConfig())},
            limits=policy or LimitPolicy(lease_s=1),
            retrieval=RetrievalConfig(embed_timeout_s=10),
            failover=FailoverConfig(max_attempts=1),
            **changes,
        )
        self.served = Served(config, self.store, embedder=self.embedder)

    def ask(
        self,
        documents: Sequence[dict[str, str]] = DOCUMENTS,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        body = {**BODY, **({"documents": documents} if documents else {}), **more}
        sent = {"authorization": f"Bearer {KEY}", **(headers or {})}
        return httpx.post(f"{self.served.url}{CHAT}", json=body, headers=sent, timeout=20)

    def used(self, name: LimitName) -> int:
        """What is used of a limit of the tenant and its key."""
        state = self.store._limits["acme"]
        return sum(sum(counter.values()) for (_, kind), counter in state.counters.items() if kind is name)

    def open(self) -> int:
        return len(self.store._limits["acme"].held)


@contextmanager
def searching(*arguments: Any, **settings: Any) -> Iterator[Searching]:
    made = Searching(*arguments, **settings)
    try:
        yield made
    finally:
        made.served.stop()
