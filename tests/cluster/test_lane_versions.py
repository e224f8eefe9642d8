"""Lanes between releases: fields, rows, protocols and models that the other side does not know."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import cluster.lanes.awaited_counts
import cluster.lanes.lane
import cluster.lanes.lane_messages
import cluster.replica.lane_registry
import cluster.replica.tier_replica
from cluster.lanes.lane import Lane
from cluster.lanes.lane_messages import first_lane_item, pack_request
from cluster.lanes.lane_state import LaneState
from engine.api import ModelInfo, Usage
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import ModelVersionError, ReplicaLostError, ReplicaVersionError
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import first, ignore, open_lane, request, settle


async def test_another_version_of_the_model_does_not_continue_an_answer() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    assert lane.model is not None
    with pytest.raises(ModelVersionError) as refusal:
        await first(lane.generate(replace(request("q"), model_version="another")))
    assert refusal.value.replica_id == "r1"
    waiting = asyncio.ensure_future(first(lane.generate(replace(request("q"), model_version=lane.model.version))))
    await settle()
    replica.engine.step()
    assert await waiting
    await lane.close()


async def test_a_field_that_the_replica_does_not_know_is_refused_and_another_may_be_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    newer = {**pack_request(request("q")), "request": {"request_id": "q", "prompt": "hi", "mood": "cheerful"}}
    monkeypatch.setattr(cluster.lanes.lane, "pack_request", lambda *_: newer)
    with pytest.raises(ReplicaVersionError, match="mood") as refusal:
        await first(lane.generate(request("q")))
    assert refusal.value.replica_id == "r1"
    assert not replica.engine.live
    await lane.close()


async def test_a_row_that_this_router_does_not_understand_ends_its_request_alone() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    batches = [lane.generate(request(name, 9)) for name in ("strange", "plain")]
    strange, plain = (asyncio.ensure_future(first(each)) for each in batches)
    await settle()
    replica.actor._registry.deliver([("strange", (1,), "x", "bored"), ("plain", (1,), "x")])
    await settle()
    with pytest.raises(ReplicaVersionError, match="bored"):
        await strange
    assert [delta.text for delta in await plain] == ["x"]
    assert replica.engine.aborted == ["strange"]
    await lane.close()


@pytest.mark.parametrize("reader_left_first", [False, True])
async def test_a_last_row_that_this_router_does_not_understand_holds_up_no_lane(
    monkeypatch: pytest.MonkeyPatch, *, reader_left_first: bool
) -> None:
    monkeypatch.setattr(cluster.lanes.awaited_counts, "LATE_S", 0.02)
    replica, counts = LocalReplica(), list[Usage | None]()
    lane, _ = await open_lane(replica)
    strange = ("q", (1,), "x", "bored", (1, 1, 0))
    reading = asyncio.ensure_future(first(lane.generate(request("q", 9), counts.append)))
    await settle()
    if reader_left_first:
        monkeypatch.setattr(replica.engine, "abort", lambda _: replica.actor._registry.deliver([strange]))
        reading.cancel()
        await settle()
    else:
        replica.engine.live.clear()  # the engine has ended it, so that an abort finds nothing
        replica.actor._registry.deliver([strange])
        with pytest.raises(ReplicaVersionError):
            await reading
    lane.drain()
    async with asyncio.timeout(2):
        while lane.state is not LaneState.CLOSED:  # noqa: ASYNC110 - a timer of the lane decides when
            await asyncio.sleep(0.01)
    assert counts == [None]


async def test_a_replica_of_another_protocol_gets_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.lanes.lane_messages, "PROTOCOL", 2)
    item = first_lane_item(ReplicaLoad(), ModelInfo("m", 1, 1))
    monkeypatch.undo()
    replica = LocalReplica()
    monkeypatch.setattr(cluster.replica.tier_replica, "first_lane_item", lambda *_: item)
    lane = Lane(LocalClient({"r1": replica}), "r1", buffer_limit=1, on_change=ignore, on_orphans=ignore)
    lane.start()
    await settle()
    assert lane.state is LaneState.CLOSED
    with pytest.raises(ReplicaLostError):
        await first(lane.generate(request("q")))
