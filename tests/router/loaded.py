"""A router whose tiers let few requests wait, and requests that wait for their first token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from engine.api import Conversation, Delta, GenerationRequest, Usage
from router.config.admission import AdmissionConfig, ClassAdmission, TierAdmission
from router.config.answer_cache import AnswerCacheConfig
from router.config.failover import FailoverConfig
from router.config.keys import KeyConfig
from router.config.limits import LimitsConfig
from router.config.prices import PriceConfig, PricesConfig
from router.config.router import RouterConfig
from router.config.tenants import TenantConfig
from router.ports.tier_backend import OnPlaced, OnUsage, TierSnapshot
from tests.router.backend import ScriptedBackend
from tests.router.served import KEY, OTHER_KEY, Served

HELD = "held"
ONE = ClassAdmission(max_requests=1)
CONFIG = RouterConfig(
    keys=(
        KeyConfig(key=KEY, tenant="acme", team="core"),
        KeyConfig(key=OTHER_KEY, tenant="other", team="x", tiers=("fast", "balanced")),
    ),
    tenants={
        "acme": TenantConfig(limits=LimitsConfig(requests_per_minute=1000)),
        "other": TenantConfig(spill="any"),
    },
    admission=AdmissionConfig(
        tiers={
            "fast": TierAdmission(interactive=ClassAdmission(ttft_s=5.0, max_requests=1), standard=ONE, batch=ONE),
            "balanced": TierAdmission(standard=ClassAdmission(max_requests=2)),
        },
    ),
    cache=AnswerCacheConfig(enabled=True),
    prices=PricesConfig(
        tiers={
            "fast": PriceConfig(input=0, output=0),
            "balanced": PriceConfig(input=1, output=1),
            "frontier": PriceConfig(input=1, output=1),
        }
    ),
    failover=FailoverConfig(max_attempts=1),
)


class LoadedBackend(ScriptedBackend):
    """Answers as scripted, but for conversations that begin with HELD, which never get a token. Reports that requests
    wait ``wait_s`` on ``fast``."""

    wait_s = 0.0

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        if isinstance(request.prompt, Conversation) and request.prompt.messages[0].content == HELD:
            self.requests.append(request)
            try:
                await asyncio.Event().wait()
            finally:
                self.closed += 1
                if on_usage is not None:
                    on_usage(Usage(0, 0, 0))
        async with aclosing(super().generate(tier, request, avoid, on_usage, account, on_placed)) as batches:
            async for deltas in batches:
                yield deltas

    def snapshot(self) -> Sequence[TierSnapshot]:
        if not self.ready:
            return super().snapshot()
        return [
            TierSnapshot(
                name, frozenset({name}), 1024, waiting=int(self.wait_s > 0), wait_s=self.wait_s * (name == "fast")
            )
            for name in self.names
        ]


def body(prompt: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": [{"role": "user", "content": prompt}], **more}


def ask(served: Served, key: str = KEY, **more: Any) -> httpx.Response:
    """The answer to a chat with the fields ``more``, of which ``prompt`` is its text."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{served.url}/v1/chat/completions", json=body(**more), headers=headers, timeout=20)


@asynccontextmanager
async def held(served: Served, key: str = KEY, **more: Any) -> AsyncGenerator[None, None]:
    """A request that waits for its first token while the context is open. At its end the client leaves."""
    async with httpx.AsyncClient(timeout=20) as client:
        headers = {"authorization": f"Bearer {key}"}
        sent = client.post(f"{served.url}/v1/chat/completions", json=body(HELD, **more), headers=headers)
        waiting = asyncio.create_task(sent)
        await until(lambda: len(served.backend.requests) > 0)
        yield
        waiting.cancel()
        await asyncio.wait({waiting})


async def until(holds: Callable[[], bool]) -> None:
    """Returns when ``holds`` returns True. Fails after 5 s."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what it waits for is in the server's thread
            await asyncio.sleep(0.005)


async def ask_later(served: Served, key: str = KEY, **more: Any) -> httpx.Response:
    return await asyncio.to_thread(ask, served, key, **more)


def parts(answer: httpx.Response) -> dict[str, str]:
    """The members of the header x-manta-refused."""
    return dict(part.split("=", 1) for part in answer.headers["x-manta-refused"].split("; "))
