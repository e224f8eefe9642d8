"""What counts as a fault of the store, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisClusterException

from cluster.state.call_guard import CallGuard
from cluster.state.circuit_breaker import BreakerPolicy, BreakerState
from router.ports.clock import SystemClock
from router.ports.state_store import StateUnavailableError


def guard(timeout_s: float = 0.05, max_in_flight: int = 1) -> CallGuard:
    return CallGuard("test", timeout_s, BreakerPolicy(max_faults=1, open_s=60), SystemClock(), max_in_flight)


async def fails(guard: CallGuard, error: Exception | None = None, *, block_s: float = 0.0) -> StateUnavailableError:
    """The error of a call that raises ``error``, or never ends after it has blocked the event loop."""

    async def call() -> None:
        time.sleep(block_s)  # noqa: ASYNC251 - the event loop is to be late
        if error is not None:
            raise error
        await asyncio.Event().wait()

    with pytest.raises(StateUnavailableError) as raised:
        await guard.call(call)
    return raised.value


@pytest.mark.parametrize(
    "error", [RedisConnectionError("gone"), RedisClusterException("no node answers"), OSError("refused"), None]
)
async def test_a_failure_of_the_store_opens_the_breaker(error: Exception | None) -> None:
    tested = guard()

    assert (await fails(tested, error)).sent
    assert tested.state is BreakerState.OPEN
    assert not (await fails(tested, error)).sent


async def test_a_full_pool_is_no_fault() -> None:
    tested = guard()

    assert not (await fails(tested, MaxConnectionsError("full"))).sent
    assert tested.state is BreakerState.CLOSED


async def test_a_late_event_loop_is_no_fault() -> None:
    tested = guard()

    await fails(tested, block_s=0.3)

    assert tested.state is BreakerState.CLOSED


async def test_a_wait_for_a_place_ends_in_time_and_is_no_fault() -> None:
    tested = guard(timeout_s=0.2)
    ended = asyncio.Event()
    holding = asyncio.create_task(tested.call(ended.wait))
    await asyncio.sleep(0.15)

    waiting = asyncio.create_task(fails(tested, RedisConnectionError("never called")))
    ended.set()
    await holding
    assert (await waiting).sent  # it got the place
    assert tested.state is BreakerState.OPEN


async def test_calls_beyond_the_places_are_not_sent() -> None:
    tested = guard(timeout_s=0.2)

    async def slow() -> None:
        await asyncio.sleep(0.1)

    results = await asyncio.gather(*(tested.call(slow) for _ in range(20)), return_exceptions=True)

    refused = [each for each in results if isinstance(each, StateUnavailableError)]
    assert len(refused) >= 18
    assert tested.state is BreakerState.CLOSED


@pytest.mark.parametrize("error", [None, RedisConnectionError("gone")])
async def test_a_cancellation_that_the_call_swallows_still_ends_the_task(error: Exception | None) -> None:
    tested, waits = guard(timeout_s=5), asyncio.Event()

    async def swallows() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            waits.set()
            await asyncio.Event().wait()
        if error is not None:
            raise error

    async def follow() -> None:
        while True:
            with contextlib.suppress(StateUnavailableError):
                await tested.call(swallows)

    task = asyncio.create_task(follow())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
