"""A store on Redis with short deadlines, and what is written to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.config import StateConfig
from cluster.state.redis_store import RedisStore
from router.ports.ledger_store import LedgerEntry, LedgerQuery
from router.ports.limit_store import Charge, LimitName, Reservation, Scope
from router.ports.state_store import StateUnavailableError

SCOPES = (Scope("tenant", ((LimitName.TOKENS_PER_DAY, 1000),)),)


@asynccontextmanager
async def opened(url: str, journal: Path, timeout_s: float = 0.05) -> AsyncIterator[RedisStore]:
    config = StateConfig(journal=journal, timeout_s=timeout_s, max_faults=3, open_s=0.2, max_open_s=0.2)
    store = RedisStore(config, url)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def request(number: int) -> Reservation:
    return Reservation(f"r{number}", "acme", SCOPES, Charge(10))


def entry(number: int) -> LedgerEntry:
    return LedgerEntry(f"e{number}", "acme", 0, {}, {"requests": 1})


async def counted(store: RedisStore) -> int:
    sums = await store.sums(LedgerQuery(0, 86_400_000))
    return sums[0].amounts["requests"] if sums else 0


async def recovered(store: RedisStore) -> None:
    """Returns when the store takes requests again."""
    for number in range(500):
        try:
            await store.reserve(request(10_000 + number), 1000)
        except StateUnavailableError:
            await asyncio.sleep(0.02)
        else:
            return
    raise AssertionError("the breaker stays open")
