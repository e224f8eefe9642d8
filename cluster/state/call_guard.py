"""``Guard``: makes each call to the store within a deadline and behind a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from cluster.state.circuit_breaker import BreakerPolicy, BreakerState, CircuitBreaker
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Guard:
    """The deadline and the circuit breaker of one class of calls: requests or background.

    ``name`` is for the log. ``timeout_s`` is the deadline of a call in seconds.
    """

    def __init__(self, name: str, timeout_s: float, policy: BreakerPolicy, clock: Clock) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._clock = clock
        self._breaker = CircuitBreaker(policy)

    @property
    def state(self) -> BreakerState:
        """The state of the breaker."""
        return self._breaker.state

    async def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Calls ``function`` and returns its result.

        Raises StateUnavailableError if the breaker is open or its half-open probe is in flight, the deadline passes, or
        the store fails.
        """
        breaker, allowed = self._breaker.ask(self._clock.monotonic())
        self._become(breaker)
        if not allowed:
            raise StateUnavailableError("the shared state has failed repeatedly and is not asked for a while")
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await function()
        except TimeoutError as error:
            self._become(self._breaker.fault(self._clock.monotonic()))
            raise StateUnavailableError(f"the shared state did not answer within {self._timeout_s:g} s") from error
        except (RedisError, OSError) as error:
            self._become(self._breaker.fault(self._clock.monotonic()))
            # Without the message, which may quote the command.
            raise StateUnavailableError(f"the shared state failed: {type(error).__name__}") from error
        except BaseException:
            self._become(self._breaker.abandoned(self._clock.monotonic()))
            raise
        self._become(self._breaker.success())
        return result

    def _become(self, breaker: CircuitBreaker) -> None:
        before, self._breaker = self._breaker, breaker
        if breaker.state is not before.state:
            level = logging.INFO if breaker.state is BreakerState.CLOSED else logging.WARNING
            logger.log(level, "shared state, %s: the circuit breaker is %s", self._name, breaker.state)
