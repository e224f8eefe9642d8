"""Lane and replica together, without Serve: what the lane promises about aborts, losses and draining."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cluster.lanes.lane_state import LANE_STATES, LaneState
from engine.api import Delta, FinishReason, Usage
from router.ports.tier_backend import (
    ReplicaDrainedError,
    ReplicaLostError,
    SlowReaderError,
)
from tests.cluster.engines import LocalReplica
from tests.cluster.lanes import exhaust, first, open_lane, request, settle


async def test_many_requests_share_one_lane_and_each_gets_its_own_tokens() -> None:
    replica = LocalReplica()
    lane, calls = await open_lane(replica)

    async def collect(request_id: str, tokens: int) -> str:
        return "".join([d.text async for ds in lane.generate(request(request_id, tokens)) for d in ds])

    readers = [asyncio.ensure_future(collect(f"q{n}", n)) for n in (1, 3, 5)]
    await settle()
    for _ in range(5):
        replica.engine.step()
        await settle()
    assert [await r for r in readers] == ["0 ", "0 1 2 ", "0 1 2 3 4 "]
    assert calls.lanes_opened == 1
    assert replica.actor._registry.requests == 0
    await lane.close()


async def test_a_reader_that_leaves_has_its_request_aborted_at_once() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    batches = lane.generate(request("q", 100))
    reader = asyncio.ensure_future(first(batches))
    await settle()
    replica.engine.step()
    await reader
    await batches.aclose()
    await settle()
    assert replica.engine.aborted == ["q"]
    assert replica.engine.stats().blocks_used == 0
    await lane.close()


async def test_aborts_of_one_turn_travel_together() -> None:
    replica = LocalReplica()
    lane, calls = await open_lane(replica)
    readers = [asyncio.ensure_future(first(lane.generate(request(f"q{i}", 100)))) for i in range(8)]
    await settle()
    for reader in readers:
        reader.cancel()
    await settle()
    assert sum(map(len, calls.aborts)) == 8
    assert len(calls.aborts) < 8
    await lane.close()


async def test_a_lost_replica_fails_every_stream_on_its_lane() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    readers = [asyncio.ensure_future(first(lane.generate(request(f"q{i}", 100)))) for i in range(3)]
    await settle()
    replica.dead = True
    replica.engine.step()  # what would have been the next item shows the loss
    for reader in readers:
        with pytest.raises(ReplicaLostError) as loss:
            await reader
        assert loss.value.replica_id == "r1"
    assert lane.state is LaneState.CLOSED


@pytest.mark.parametrize("reason", [FinishReason.ERROR, FinishReason.ABORT])
async def test_a_request_that_ends_with_its_engine_is_lost_after_what_was_sent(reason: FinishReason) -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    reader = lane.generate(request("q", 100))
    waiting = asyncio.ensure_future(anext(reader))
    await settle()
    replica.engine.on_step([Delta("q", (0,), "0 "), Delta("q", (), "", reason)])  # as an engine that has died
    assert [delta.text for delta in await waiting] == ["0 "]
    with pytest.raises(ReplicaLostError) as loss:
        await anext(reader)
    assert lane.model is not None
    assert (loss.value.replica_id, loss.value.version) == ("r1", lane.model.version)
    assert loss.value.version
    await lane.close()


async def test_a_failure_inside_a_request_is_no_lost_replica() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    waiting = asyncio.ensure_future(first(lane.generate(request("q", 100))))
    await settle()
    replica.engine.on_step([Delta("q", (), "", FinishReason.ERROR, Usage(1, 0, 0), "The engine failed: KeyError")])
    assert [delta.finish_reason for delta in await waiting] == [FinishReason.ERROR]
    await lane.close()


async def test_a_draining_lane_hands_its_requests_over_and_closes_when_their_counts_have_come() -> None:
    replica = LocalReplica()
    lane, calls = await open_lane(replica)
    counts: list[Usage | None] = []
    waiting = [asyncio.ensure_future(exhaust(lane.generate(request(q, 100), counts.append))) for q in ("q", "r")]
    await settle()
    replica.engine.step()
    await settle()
    lane.drain()
    lane.hand_over()
    await settle()
    for each in waiting:
        with pytest.raises(ReplicaDrainedError) as moved:
            await each
        assert moved.value.replica_id == "r1"
    assert sorted(calls.aborts[0]) == ["q", "r"]
    assert counts == [Usage(1, 1, 0)] * 2
    assert not replica.engine.live
    assert lane.state is LaneState.CLOSED


async def test_a_router_that_goes_takes_its_requests_with_it() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    other, _ = await open_lane(replica)
    mine = asyncio.ensure_future(first(lane.generate(request("mine", 100))))
    theirs = asyncio.ensure_future(first(other.generate(request("theirs", 100))))
    await settle()
    await lane.close()
    await settle()
    assert replica.engine.aborted == ["mine"]
    assert set(replica.engine.live) == {"theirs"}
    with pytest.raises(ReplicaLostError):
        await mine
    theirs.cancel()
    await other.close()


async def test_a_draining_lane_finishes_what_it_has_and_closes_itself() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    async with aclosing(lane.generate(request("q", 2))) as batches:
        reader = asyncio.ensure_future(first(batches))
        await settle()
        lane.drain()
        assert lane.state is LaneState.DRAINING
        replica.engine.step()
        await reader
        replica.engine.step()
        assert (await first(batches))[-1].finish_reason is FinishReason.LENGTH
    await settle()
    assert (lane.state, lane.outstanding) == (LaneState.CLOSED, 0)


async def test_a_reader_too_slow_is_ended_and_the_others_go_on() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica, buffer_limit=3)
    slow = lane.generate(request("slow", 100))
    reader = asyncio.ensure_future(first(slow))
    fast: list[str] = []

    async def read_fast() -> None:
        async for deltas in lane.generate(request("fast", 10)):
            fast.extend(d.text for d in deltas)

    other = asyncio.ensure_future(read_fast())
    await settle()
    for _ in range(10):
        replica.engine.step()
        await settle()
    await reader
    await other
    assert len(fast) == 10
    assert replica.engine.aborted == ["slow"]
    await slow.aclose()
    await lane.close()


async def test_the_counts_of_a_slow_reader_are_reported_and_its_lane_drains() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica, buffer_limit=1)
    counts: list[Usage | None] = []
    batches = lane.generate(request("slow", 100), counts.append)
    reader = asyncio.ensure_future(first(batches))
    await settle()
    for _ in range(4):
        replica.engine.step()
        await settle()
    await reader
    with pytest.raises(SlowReaderError):
        await exhaust(batches)
    lane.drain()
    await settle()
    (usage,) = counts
    assert usage is not None
    assert usage.completion_tokens >= 2
    assert lane.state is LaneState.CLOSED


@pytest.mark.parametrize("state", list(LaneState))
def test_every_state_can_reach_closed(state: LaneState) -> None:
    assert state is LaneState.CLOSED or LaneState.CLOSED in LANE_STATES[state]
