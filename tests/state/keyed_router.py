"""``KeyedRouter``: a router whose idempotency keys are in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cluster.config import StateConfig
from cluster.state.redis_idempotency_store import RedisIdempotencyStore
from engine.api import Delta, GenerationRequest
from router.app_factory import build_app
from router.config.failover import FailoverConfig
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.ledger_store import LedgerQuery, Resolution
from router.ports.tier_backend import OnPlaced, OnUsage
from router.router_ports import RouterPorts
from tests.router.backend import ScriptedBackend

CHAT = "/v1/chat/completions"
BODY = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
LEASE_S = 1.0
CONFIG = RouterConfig.model_validate(
    {
        "keys": (
            KeyConfig(key="sk-user", tenant="acme", team="core"),
            KeyConfig(key="sk-second", tenant="acme", team="core"),
        ),
        "idempotency": {"lease_s": LEASE_S, "max_answer_bytes": 2000},
        "failover": FailoverConfig(max_attempts=1),
    }
)


@dataclass
class GatedBackend(ScriptedBackend):
    """Begins an answer when ``gate`` is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)

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
                await self.gate.wait()
                yield batch


class KeyedRouter:
    """A router with its own backend and connections; the ledger may be shared."""

    def __init__(self, url: str, journal: Path, ledger: MemoryStore | None = None) -> None:
        self.backend = GatedBackend()
        self.backend.gate.set()
        state = StateConfig(journal=journal, timeout_s=5, background_timeout_s=5, max_faults=3)
        self.keys = RedisIdempotencyStore(state, url)
        self.ledger = ledger or MemoryStore(SystemClock())
        self.app = build_app(CONFIG, self.backend, RouterPorts(store=self.ledger, idempotency=self.keys))

    async def ask(self, key: str | None = "key-1", user: str = "sk-user", **more: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {user}"} | ({} if key is None else {"idempotency-key": key})
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            return await http.post(CHAT, json={**BODY, **more})

    async def billed(self) -> tuple[int, int]:
        """The requests and the output tokens in the ledger."""
        found = await self.ledger.sums(LedgerQuery(0, 2**62, Resolution.DAY))
        return (found[0].amounts["requests"], found[0].amounts["output_tokens"]) if found else (0, 0)
