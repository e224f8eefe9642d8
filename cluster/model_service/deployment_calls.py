"""``GuardedCalls``: makes each call to a model's deployment within a deadline and behind a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.model_service.config import ServiceConfig
from cluster.state.circuit_breaker import BreakerPolicy, BreakerState, CircuitBreaker
from router.ports.clock import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")

HUNG_AFTER = 0.9
"""The share of its deadline after which a call without an answer is a fault of the model, though the caller ends it."""


class GuardedCalls:
    """The calls of one router to one deployment. ``name`` is the model's name, for errors and the log.

    ``unavailable`` is the error class of the port. It is raised for a call without an answer, and if the call itself
    raises it, that counts as a fault of the deployment.
    """

    def __init__(self, name: str, config: ServiceConfig, clock: Clock, unavailable: type[Exception]) -> None:
        self._name = name
        self._clock = clock
        self._unavailable = unavailable
        self._breaker = CircuitBreaker(BreakerPolicy(config.max_faults, config.open_s, config.max_open_s))
        self._answered_at = -math.inf  # the event loop's time of the last answer

    @property
    def state(self) -> BreakerState:
        """The state of the circuit breaker."""
        return self._breaker.state

    async def call(self, function: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Calls ``function`` and returns its result.

        Raises ``unavailable`` if the breaker is open or its half-open probe is under way, or after ``timeout_s``
        seconds. Raises what ``function`` raises.
        """
        breaker, allowed = self._breaker.ask(self._clock.monotonic())
        self._become(breaker)
        if not allowed:
            raise self._unavailable(f"the {self._name} has failed repeatedly and is not asked for a while")
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                result = await function()
        except TimeoutError as error:
            self._time_out(deadline, timeout_s)
            raise self._unavailable(f"the {self._name} did not answer within {timeout_s:g} s") from error
        except self._unavailable:
            self._become(self._breaker.fault(self._clock.monotonic()))
            raise
        except BaseException:
            self._leave(deadline, timeout_s)
            raise
        self._answered_at = asyncio.get_running_loop().time()
        self._become(self._breaker.success())
        return result

    def _leave(self, deadline: float, timeout_s: float) -> None:
        """Notes that the caller has left. That says nothing about the model, unless it had nearly all of its time: a
        caller's own deadline often ends first, and the breaker would never open."""
        if asyncio.get_running_loop().time() < deadline - (1 - HUNG_AFTER) * timeout_s:
            self._become(self._breaker.abandoned(self._clock.monotonic()))
        else:
            self._time_out(deadline, timeout_s)

    def _time_out(self, deadline: float, timeout_s: float) -> None:
        """Notes a timeout. It is no fault of the model if this event loop was busy elsewhere when it ended, or if the
        model has answered another call meanwhile: then it is busy. The calls of a burst wait for each other, and many
        of them end in the same moment."""
        late = asyncio.get_running_loop().time() - deadline > timeout_s
        busy = self._answered_at > deadline - timeout_s
        step = self._breaker.abandoned if late or busy else self._breaker.fault
        self._become(step(self._clock.monotonic()))

    def _become(self, breaker: CircuitBreaker) -> None:
        before, self._breaker = self._breaker, breaker
        if breaker.state is not before.state:
            level = logging.INFO if breaker.state is BreakerState.CLOSED else logging.WARNING
            logger.log(level, "%s: the circuit breaker is %s", self._name, breaker.state)
