"""What a pool does with the requests of a replica that stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cluster.lanes.lane_pool import HAND_OVER_RETRY_S, LanePool
from engine.api import Delta, GenerationRequest, SamplingParams
from router.ports.tier_backend import ReplicaDrainedError
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import first, settle
from tests.cluster.pools import make_pool, request


@pytest.mark.parametrize("other", [True, False])
async def test_what_a_stopping_replica_still_runs_is_handed_over_once_another_one_is_ready(other: bool) -> None:
    pool, client = await make_pool("a", drain_timeout_s=0.01)
    lane = await pool.acquire(request("q"))
    running = asyncio.ensure_future(anext(lane.generate(GenerationRequest("q", "hi", SamplingParams(max_tokens=99)))))
    await settle()
    pool.replicas_changed([])
    if not other:
        await asyncio.sleep(0.03)
        assert not running.done()  # nothing could take it
    client.replicas["b"] = LocalReplica()
    pool.replicas_changed(["b"])
    with pytest.raises(ReplicaDrainedError):
        await asyncio.wait_for(running, 5)
    assert client.replicas["a"].engine.aborted == ["q"]
    await pool.close()


class VirtualLoop:
    """A loop whose timers ring when ``advance`` has come to their time."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []

    def call_later(self, delay: float, callback: Callable[..., None], *args: object) -> None:
        self._timers.append((self._now + delay, callback, args))

    async def advance(self, seconds: float) -> None:
        until = self._now + seconds
        while due := [timer for timer in self._timers if timer[0] <= until + 1e-9]:
            first = min(due, key=lambda timer: timer[0])
            self._timers.remove(first)
            self._now, callback, args = first
            callback(*args)
            await settle()
        self._now = until


async def draining(drain_timeout_s: float) -> tuple[LanePool, LocalClient, VirtualLoop, asyncio.Task[list[Delta]]]:
    """A pool on a virtual clock, and a request that runs on its only replica "a", which Serve has begun to stop."""
    pool, client = await make_pool("a", drain_timeout_s=drain_timeout_s)
    loop = VirtualLoop()
    pool._loop = loop  # type: ignore[assignment]
    lane = await pool.acquire(request("q"))
    running = asyncio.ensure_future(first(lane.generate(GenerationRequest("q", "hi", SamplingParams(max_tokens=99)))))
    await settle()
    client.replicas["b"] = LocalReplica()
    return pool, client, loop, running


@pytest.mark.parametrize(("drain_timeout_s", "after_s"), [(600.0, 595.0), (10.0, 8.0)])
async def test_a_stopping_replica_keeps_its_requests_until_shortly_before_its_end(
    drain_timeout_s: float, after_s: float
) -> None:
    pool, client, loop, running = await draining(drain_timeout_s)
    pool._sync(frozenset("b"))
    await settle()
    await loop.advance(after_s - 0.01)
    assert not running.done()
    await loop.advance(0.01)
    with pytest.raises(ReplicaDrainedError):
        await asyncio.wait_for(running, 5)
    assert client.replicas["a"].engine.aborted == ["q"]
    assert not loop._timers
    await pool.close()


async def test_as_long_as_no_other_replica_is_ready_it_keeps_them_and_the_pool_looks_again() -> None:
    pool, _, loop, running = await draining(10.0)
    pool._sync(frozenset())
    await loop.advance(30.0)
    assert not running.done()
    pool._sync(frozenset("b"))
    await settle()
    await loop.advance(HAND_OVER_RETRY_S)
    with pytest.raises(ReplicaDrainedError):
        await asyncio.wait_for(running, 5)
    await pool.close()


async def test_nothing_is_waited_for_once_its_requests_have_ended() -> None:
    pool, client, loop, running = await draining(10.0)
    pool._sync(frozenset())
    running.cancel()  # the client leaves, which ends the last one
    await settle()
    assert client.replicas["a"].actor._registry.lanes == 0
    await loop.advance(8.0)
    assert not loop._timers
    await pool.close()
