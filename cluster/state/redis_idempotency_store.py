"""``RedisIdempotencyStore``: the idempotency keys of requests in Redis. Implements the port ``IdempotencyStore``.

Each call is one call of a script, so it is atomic, and one round trip.
"""

from __future__ import annotations

import logging
from typing import Any

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.lua_script import LuaScript
from cluster.state.redis_client import Client
from router.ports.clock import Clock, SystemClock
from router.ports.idempotency_store import KeyClaim, KeyState, KeyTerms
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

MAX_CALLS = 64  # at a time
NO_TERMS = KeyTerms(0, 0, 0, 0)  # of an operation that keeps nothing


class RedisIdempotencyStore:
    """The idempotency keys in the Redis at ``url``. Implements ``IdempotencyStore``. ``script_clock`` replaces the
    Redis server's time in tests. Raises ValueError for a wrong URL."""

    def __init__(self, config: StateConfig, url: str, script_clock: Clock | None = None) -> None:
        clock = SystemClock()
        self._script_clock = script_clock
        self._claims = GuardedConnections("idempotency keys", config, url, clock, config.timeout_s, MAX_CALLS)
        background_s = config.background_timeout_s
        self._changes = GuardedConnections("idempotency keys, changes", config, url, clock, background_s, MAX_CALLS)
        self._script = LuaScript("idempotency")

    async def start(self) -> None:
        try:
            await self._claims.open()
        except StateUnavailableError as error:
            logger.warning("starting without idempotency keys: %s", error)

    async def close(self) -> None:
        for channel in (self._claims, self._changes):
            await channel.close()

    async def claim(self, tenant: str, key: str, request: str, owner: str, account: str, terms: KeyTerms) -> KeyClaim:
        state, value = await self._run(self._claims, "claim", tenant, key, owner, terms, request, account)
        return KeyClaim(KeyState(state.decode()), value.decode())

    async def renew(self, tenant: str, key: str, owner: str, terms: KeyTerms) -> bool:
        return bool(await self._run(self._changes, "renew", tenant, key, owner, terms))

    async def answer(self, tenant: str, key: str, owner: str, answer: str, terms: KeyTerms) -> bool:
        return bool(await self._run(self._changes, "answer", tenant, key, owner, terms, answer))

    async def release(self, tenant: str, key: str, owner: str) -> None:
        await self._run(self._changes, "release", tenant, key, owner, NO_TERMS)

    async def _run(
        self,
        channel: GuardedConnections,
        operation: str,
        tenant: str,
        key: str,
        owner: str,
        terms: KeyTerms,
        *arguments: str,
    ) -> Any:
        """Runs the script, and returns its answer. Raises StateUnavailableError."""
        now = "" if self._script_clock is None else int(self._script_clock.now() * 1000)
        bounds = terms.lease_ms, terms.window_ms, terms.max_keys, terms.max_bytes
        sent = [operation, redis_names.base(tenant), now, key, owner, *bounds, *arguments]

        async def run(client: Client) -> Any:
            return await self._script.run(client, [redis_names.idempotency_keys(tenant)], sent)

        return await channel.call(run)
