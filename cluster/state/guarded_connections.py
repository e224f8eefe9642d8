"""``GuardedConnections``: the connections to Redis for one kind of calls, with a deadline and a circuit breaker of
their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.config import StateConfig
from cluster.state.call_guard import CallGuard
from cluster.state.circuit_breaker import BreakerPolicy, BreakerState
from cluster.state.pipelined_client import PipelinedClient
from cluster.state.redis_client import Client, connect
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError

T = TypeVar("T")


class GuardedConnections:
    """Calls to the Redis at ``url``, at most ``max_in_flight`` at a time, each of at most ``timeout_s`` seconds.

    ``name`` is the name of the class of calls, for the log. Two objects of this class share neither connections nor
    breakers. Each call uses one connection at a time. ``pipelined``: the calls use ``evalsha``, ``eval`` and
    ``execute_command`` alone, so that they can share one connection; answers to ``execute_command`` are as Redis sends
    them. Raises ValueError for a wrong URL.
    """

    def __init__(
        self,
        name: str,
        config: StateConfig,
        url: str,
        clock: Clock,
        timeout_s: float,
        max_in_flight: int,
        *,
        pipelined: bool = False,
    ) -> None:
        self.name = name
        policy = BreakerPolicy(config.max_faults, config.open_s, config.max_open_s)
        self._start_guard = CallGuard(name, config.background_timeout_s, policy, clock, 1)
        # Twice as many: a call that was given up may hold its connection for a moment longer.
        self._client: Client = connect(config, url, 2 * max_in_flight)
        if pipelined and not config.cluster:  # of a cluster, the tenant decides on the node
            self._client = PipelinedClient(self._client, config.background_timeout_s)
        self._guard = CallGuard(name, timeout_s, policy, clock, max_in_flight)
        self._closed = False
        self._in_flight = 0
        self._idle = asyncio.Event()  # no call is in flight
        self._idle.set()

    @property
    def breaker(self) -> BreakerState:
        """The state of the circuit breaker."""
        return self._guard.state

    async def open(self) -> None:
        """Makes the first connection, which may take longer than a call. Raises StateUnavailableError if Redis does not
        answer."""
        await self._counted(self._start_guard.call(self._client.ping))

    async def call(self, function: Callable[[Client], Awaitable[T]]) -> T:
        """Calls ``function`` with the client and returns its result. Raises StateUnavailableError if the breaker is
        open, the deadline passes, Redis fails, or ``close`` was called."""
        if self._closed:
            raise StateUnavailableError("the store is closed", sent=False)
        return await self._counted(self._guard.call(lambda: function(self._client)))

    async def close(self) -> None:
        """Closes all connections when the calls in flight have ended, each within its deadline. Further calls raise
        StateUnavailableError."""
        self._closed = True
        # A call whose connection was closed would connect once more, and nothing would close that connection.
        await self._idle.wait()
        await self._client.aclose()

    async def _counted(self, call: Awaitable[T]) -> T:
        """Awaits ``call``, which is in flight until then."""
        self._in_flight += 1
        self._idle.clear()
        try:
            return await call
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
