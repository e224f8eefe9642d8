"""``RedisSafetyStore``: implements the router's port ``SafetyStore`` with Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.redis_audit import RedisAudit
from cluster.state.redis_client import Client
from cluster.state.redis_reviews import RedisReviews
from cluster.state.redis_store import default_journal
from router.ports.clock import Clock, SystemClock
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
CLOSE_S = 2.0  # the longest that ``close`` waits for audit records
MAX_LOOKUPS = 64  # of exceptions at a time, for which requests wait
MAX_REVIEW_CALLS = 32
MAX_AUDIT_CALLS = 8
AUDIT_JOURNAL = "audit"  # the directory within that of the ledger's journal


class RedisSafetyStore:
    """The shared state of safety in the Redis at ``url``. Implements ``SafetyStore``.

    ``audit_days`` is the retention of audit records, in days. ``clock`` times the circuit breakers. ``script_clock``
    replaces the Redis server's time in tests. ``on_lost`` is called for each audit record that is lost.

    Raises OSError if the journal's directory cannot be used, and ValueError for a wrong URL.
    """

    def __init__(
        self,
        config: StateConfig,
        url: str,
        audit_days: int,
        clock: Clock | None = None,
        script_clock: Clock | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        clock = clock or SystemClock()
        self._lookups = GuardedConnections("exceptions", config, url, clock, config.timeout_s, MAX_LOOKUPS)
        self._people = GuardedConnections("reviews", config, url, clock, config.background_timeout_s, MAX_REVIEW_CALLS)
        self._records = GuardedConnections(
            "audit log", config, url, clock, config.background_timeout_s, MAX_AUDIT_CALLS
        )
        self.reviews = RedisReviews(self._lookups, self._people, script_clock)
        journal = (config.journal or default_journal(url)) / AUDIT_JOURNAL
        kept_ms = audit_days * DAY_MS
        self.audit = RedisAudit(self._records, journal, config.journal_max_bytes, kept_ms, clock, script_clock, on_lost)

    async def start(self) -> None:
        self.audit.start()
        try:
            await asyncio.gather(*(channel.open() for channel in self._channels))
        except StateUnavailableError as error:
            logger.warning("starting without the review queue: %s", error)

    async def close(self) -> None:
        await self.audit.close(CLOSE_S)
        for channel in self._channels:
            await channel.close()

    @property
    def _channels(self) -> tuple[GuardedConnections, ...]:
        return self._lookups, self._people, self._records

    async def policy(self, tenant: str) -> str | None:
        async def read(client: Client) -> str | None:
            found = await client.hget(redis_names.POLICIES, tenant)
            return None if found is None else bytes(found).decode()

        return await self._lookups.call(read)

    async def put_policy(self, tenant: str, document: str) -> None:
        async def put(client: Client) -> None:
            await client.hset(redis_names.POLICIES, tenant, document)

        await self._people.call(put)

    async def delete_policy(self, tenant: str) -> bool:
        async def delete(client: Client) -> bool:
            return bool(await client.hdel(redis_names.POLICIES, tenant))

        return await self._people.call(delete)

    async def policy_tenants(self) -> Sequence[str]:
        async def names(client: Client) -> list[str]:
            return sorted(bytes(name).decode() for name in await client.hkeys(redis_names.POLICIES))

        return await self._people.call(names)

    async def secret(self, proposed: bytes) -> bytes:
        async def agree(client: Client) -> bytes:
            await client.set(redis_names.SAFETY_SECRET, proposed, nx=True)
            return bytes(await client.get(redis_names.SAFETY_SECRET))

        return await self._people.call(agree)
