"""The engine of a replica dies, and its process lives on: until Serve has replaced it, it is as good as lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from cluster.config import PlacementConfig
from cluster.lanes.lane_state import LaneState
from cluster.lanes.replica_directory import ReplicaDirectory
from cluster.serve_backend import ServeBackend
from engine.api import EngineDeadError, GenerationRequest, SamplingParams
from router.config.failover import FailoverConfig
from router.generation.attempts import run_attempts
from router.ports.tier_backend import ReplicaUnreachableError, TierDescription
from router.usage_meter import UsageMeter
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import first, open_lane, request, settle

TOKENS = 4


class Tier:
    """A tier with the replica "a", behind the router's backend."""

    def __init__(self) -> None:
        self.client = LocalClient({"a": LocalReplica()})
        self.backend = ServeBackend([TierDescription("fast", "m")], {"fast": self.client}, PlacementConfig(wait_s=30.0))
        self.failovers: list[str] = []

    async def answer(self, name: str) -> str:
        asked = GenerationRequest(name, "hi", SamplingParams(max_tokens=TOKENS, seed=1))
        metered = partial(UsageMeter().attempt, 1), lambda kind, other_version: self.failovers.append(kind)
        attempts = run_attempts(self.backend, "fast", asked, FailoverConfig(), list, *metered)
        return "".join([delta.text async for deltas in attempts for delta in deltas])

    async def step(self, name: str) -> None:
        await settle()
        self.client.replicas[name].engine.step()
        await settle()

    def replace(self) -> None:
        """What Serve does after three failed health checks."""
        self.client.replicas = {"b": LocalReplica()}
        ReplicaDirectory.publish("fast", frozenset({"b"}))

    async def finish(self, running: asyncio.Future[str]) -> str:
        """Steps the replacement until ``running`` has its answer, whenever the router finds the replacement."""
        async with asyncio.timeout(60):
            while not running.done():
                await self.step("b")
                await asyncio.sleep(0.01)
        return running.result()

    @property
    def ready(self) -> frozenset[str]:
        return self.backend.snapshot()[0].replicas


@pytest.fixture
async def tier() -> AsyncIterator[Tier]:
    subject = Tier()
    await subject.backend.start(lambda _: None)
    ReplicaDirectory.publish("fast", frozenset({"a"}))
    await settle()
    yield subject
    await subject.backend.close()
    ReplicaDirectory.publish("fast", frozenset())


async def test_its_only_replica_is_waited_for_by_the_answers_that_it_had_begun(tier: Tier) -> None:
    running = asyncio.ensure_future(tier.answer("q"))
    await tier.step("a")
    tier.client.replicas["a"].engine.die()
    await asyncio.sleep(0.4)  # the lane has been opened again meanwhile, and has broken at once
    assert not running.done(), "it used up its attempts on the dead engine"
    assert tier.client.lanes_opened == 2
    assert tier.ready == frozenset()
    tier.replace()
    assert (await tier.finish(running)).startswith("0 ")
    assert tier.failovers == ["resumed"]


async def test_new_requests_wait_for_its_replacement_instead_of_being_refused(tier: Tier) -> None:
    tier.client.replicas["a"].engine.die()  # it is idle: nothing tells the router before the next heartbeat
    waiting = asyncio.ensure_future(tier.answer("q"))
    await asyncio.sleep(0.1)
    assert not waiting.done(), "it used up its attempts before the lane was closed"
    tier.replace()
    assert (await tier.finish(waiting)).startswith("0 ")


async def test_an_idle_engine_that_dies_closes_the_lane_with_the_next_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.replica.tier_replica.HEARTBEAT_S", 0.01)
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    replica.engine.die()
    async with asyncio.timeout(10):
        while lane.state is not LaneState.CLOSED:  # noqa: ASYNC110 - a heartbeat of the replica decides when
            await asyncio.sleep(0.01)
    assert replica.actor._registry.lanes == 0
    with pytest.raises(EngineDeadError):
        await anext(replica.actor.lane("again", replica_id="r1"))


async def test_a_refusal_by_a_dead_engine_closes_the_lane_at_once() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    replica.engine.die()
    with pytest.raises(ReplicaUnreachableError):
        await first(lane.generate(request("q")))
    assert lane.state is not LaneState.READY, "another request would be sent there in this turn of the event loop"
    await settle()
    assert lane.state is LaneState.CLOSED
