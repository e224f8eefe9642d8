"""``CallGuard``: makes each call to the store within a deadline and behind a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import MaxConnectionsError, RedisClusterException, RedisError

from cluster.state.circuit_breaker import BreakerPolicy, BreakerState, CircuitBreaker
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError

T = TypeVar("T")

MAX_LATENESS = 2.0
"""Deadlines after which a timeout says more about this event loop than about the store."""

logger = logging.getLogger(__name__)


class CallGuard:
    """The deadline and the circuit breaker of one class of calls: requests or background.

    ``name`` is for the log. ``timeout_s`` is the deadline of a call in seconds, which includes the wait for one of
    ``max_in_flight`` places. Only failures of the store count as faults for the breaker. A timeout during that wait, or
    because the event loop was late, does not.
    """

    def __init__(self, name: str, timeout_s: float, policy: BreakerPolicy, clock: Clock, max_in_flight: int) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._clock = clock
        self._breaker = CircuitBreaker(policy)
        self._places = asyncio.Semaphore(max_in_flight)

    @property
    def state(self) -> BreakerState:
        """The state of the circuit breaker."""
        return self._breaker.state

    async def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Calls ``function`` and returns its result.

        Raises StateUnavailableError if the breaker is open or its half-open probe is in flight, the deadline passes, or
        the store fails. Raises CancelledError if the task was cancelled meanwhile, whatever ``function`` did.
        """
        self._check(self._breaker.ask(self._clock.monotonic())[1])  # without waiting for a place first
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        if self._places.locked():
            await self._wait_for_place(deadline)
        else:
            await self._places.acquire()  # returns at once, so that it needs no timer
        try:
            return await self._ask(function, deadline)
        finally:
            self._places.release()
            # redis-py sends by asyncio.wait_for, which until Python 3.12 loses a cancellation that comes as it ends. A
            # task that was to end would run on.
            if task is not None and task.cancelling() > before:
                raise asyncio.CancelledError

    async def _wait_for_place(self, deadline: float) -> None:
        """Takes a place when another call ends. Raises StateUnavailableError if none does until ``deadline``."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError as error:
            message = f"no call to the shared state ended within {self._timeout_s:g} s"
            raise StateUnavailableError(message, sent=False) from error

    async def _ask(self, function: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Calls ``function`` until ``deadline``, in seconds of the event loop. Raises StateUnavailableError."""
        breaker, allowed = self._breaker.ask(self._clock.monotonic())
        self._become(breaker)
        self._check(allowed)
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline):
                result = await function()
        except TimeoutError as error:
            self._time_out(started, deadline)
            raise StateUnavailableError(f"the shared state did not answer within {self._timeout_s:g} s") from error
        except MaxConnectionsError as error:  # of this process, so it says nothing about the store
            self._become(self._breaker.abandoned(self._clock.monotonic()))
            raise StateUnavailableError("no connection to the shared state is free", sent=False) from error
        except (RedisError, RedisClusterException, OSError) as error:
            self._become(self._breaker.fault(self._clock.monotonic()))
            # Without the message, which may quote the command.
            raise StateUnavailableError(f"the shared state failed: {type(error).__name__}") from error
        except BaseException:
            self._become(self._breaker.abandoned(self._clock.monotonic()))
            raise
        self._become(self._breaker.success())
        return result

    def _check(self, allowed: bool) -> None:
        if not allowed:
            message = "the shared state has failed repeatedly and is not asked for a while"
            raise StateUnavailableError(message, sent=False)

    def _time_out(self, started: float, deadline: float) -> None:
        """Notes a timeout. It is the store's fault if the store had the best part of the deadline, and the event loop
        was not busy elsewhere when it ended."""
        late = asyncio.get_running_loop().time() - deadline > (MAX_LATENESS - 1) * self._timeout_s
        short = deadline - started < self._timeout_s / 2
        step = self._breaker.abandoned if late or short else self._breaker.fault
        self._become(step(self._clock.monotonic()))

    def _become(self, breaker: CircuitBreaker) -> None:
        before, self._breaker = self._breaker, breaker
        if breaker.state is not before.state:
            level = logging.INFO if breaker.state is BreakerState.CLOSED else logging.WARNING
            logger.log(level, "shared state, %s: the circuit breaker is %s", self._name, breaker.state)
