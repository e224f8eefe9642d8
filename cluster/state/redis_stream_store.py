"""``RedisStreamStore``: the events of detached streams in Redis. Implements the router's port ``StreamStore``.

Each call is one call of a script, so it is atomic, and one round trip.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.lua_script import LuaScript
from cluster.state.redis_client import Client
from router.ports.clock import Clock, SystemClock
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import GONE_MS, StreamPart, StreamState, StreamTerms

logger = logging.getLogger(__name__)

MAX_APPENDS = 32  # at a time; streams wait for none of them
MAX_READS = 64


class RedisStreamStore:
    """The detached streams in the Redis at ``url``. Implements ``StreamStore``. ``script_clock`` replaces the Redis
    server's time in tests. Raises ValueError for a wrong URL."""

    def __init__(self, config: StateConfig, url: str, script_clock: Clock | None = None) -> None:
        clock, timeout_s = SystemClock(), config.background_timeout_s
        self._script_clock = script_clock
        self._appends = GuardedConnections("streams", config, url, clock, timeout_s, MAX_APPENDS, pipelined=True)
        self._reads = GuardedConnections("streams, resumed", config, url, clock, timeout_s, MAX_READS)
        self._script = LuaScript("streams")

    async def start(self) -> None:
        try:
            await self._appends.open()
        except StateUnavailableError as error:
            logger.warning("starting without resumable streams: %s", error)

    async def close(self) -> None:
        for channel in (self._appends, self._reads):
            await channel.close()

    async def append(
        self,
        tenant: str,
        stream_id: str,
        owner: str,
        first: int,
        events: Sequence[str],
        terms: StreamTerms,
        *,
        ended: bool = False,
    ) -> int | None:
        times, bounds = (terms.lease_ms, terms.window_ms), (terms.max_streams, terms.max_bytes)
        sent: list[str | int] = [stream_id, owner, first, int(ended), *times, *bounds, GONE_MS, *events]
        found = await self._run(self._appends, "append", tenant, *sent)
        return None if found is None else int(found)

    async def read(self, tenant: str, stream_id: str, owner: str, after: int, count: int) -> StreamPart | None:
        found = await self._run(self._reads, "read", tenant, stream_id, owner, after, count, GONE_MS)
        if found is None:
            return None
        state, events = found
        return StreamPart(tuple(event.decode() for event in events), StreamState(state.decode()))

    async def _run(self, channel: GuardedConnections, operation: str, tenant: str, *arguments: str | int) -> Any:
        """Runs the script, and returns its answer. Raises StateUnavailableError."""
        now = "" if self._script_clock is None else int(self._script_clock.now() * 1000)
        sent = [operation, redis_names.base(tenant), now, *arguments]

        async def run(client: Client) -> Any:
            return await self._script.run(client, [redis_names.streams(tenant)], sent)

        return await channel.call(run)
