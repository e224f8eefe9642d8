"""Lane and replica together, without Serve: what the lane promises about aborts, losses and draining."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

import cluster.lanes.lane
import cluster.lanes.lane_messages
import cluster.replica.lane_registry
import cluster.replica.tier_replica
from cluster.lanes.dataclass_codec import Record
from cluster.lanes.lane import Lane
from cluster.lanes.lane_messages import first_lane_item, pack_request
from cluster.lanes.lane_state import LANE_STATES, LaneState
from engine.api import Delta, FinishReason, GenerationRequest, ModelInfo, Usage
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import (
    ModelVersionError,
    ReplicaDrainedError,
    ReplicaLostError,
    ReplicaOverloadedError,
    ReplicaVersionError,
    SlowReaderError,
)
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import exhaust, first, ignore, open_lane, request, settle


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


async def test_an_abort_never_overtakes_its_submission() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    reader = asyncio.ensure_future(first(lane.generate(request("q", 100))))
    await asyncio.sleep(0)  # the submission is on its way, its answer is not
    reader.cancel()
    await settle()
    assert not replica.engine.live
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


async def test_a_refusal_is_raised_and_leaves_nothing_behind() -> None:
    replica = LocalReplica(capacity=0)
    lane, _ = await open_lane(replica)
    with pytest.raises(ReplicaOverloadedError) as refusal:
        await first(lane.generate(request("q")))
    assert (refusal.value.replica_id, refusal.value.retry_after_s) == ("r1", 2.0)
    assert lane.outstanding == 0
    assert replica.actor._registry.requests == 0
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
    monkeypatch.setattr(cluster.lanes.lane, "LATE_S", 0.02)
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


async def test_a_request_that_is_refused_after_its_reader_has_left_used_nothing_and_its_lane_drains() -> None:
    replica = LocalReplica(capacity=0)
    lane, _ = await open_lane(replica)
    counts: list[Usage | None] = []
    reader = asyncio.ensure_future(first(lane.generate(request("q"), counts.append)))
    await asyncio.sleep(0)  # the submission is on its way, its answer is not
    reader.cancel()
    lane.drain()
    await settle()
    assert counts == [Usage(0, 0, 0)]
    assert lane.state is LaneState.CLOSED


async def test_a_request_whose_submission_was_lost_after_its_reader_left_holds_up_no_lane() -> None:
    class Losing(LocalClient):
        async def submit(
            self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
        ) -> Record | None:
            raise ReplicaLostError("no reply", replica_id)

    lane = Lane(
        Losing({"r1": LocalReplica()}), "r1", buffer_limit=10, on_change=lambda: None, on_orphans=lambda _: None
    )
    lane.start()
    await settle()
    counts: list[Usage | None] = []
    reader = asyncio.ensure_future(first(lane.generate(request("q"), counts.append)))
    await asyncio.sleep(0)
    reader.cancel()
    lane.drain()
    await settle()
    assert counts == [None]
    assert lane.state is LaneState.CLOSED


@pytest.mark.parametrize("state", list(LaneState))
def test_every_state_can_reach_closed(state: LaneState) -> None:
    assert state is LaneState.CLOSED or LaneState.CLOSED in LANE_STATES[state]


async def test_a_request_whose_submission_hangs_fails_with_its_lane() -> None:
    class Hanging(LocalClient):
        async def submit(
            self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
        ) -> Record | None:
            await asyncio.Event().wait()
            return None

    lane = Lane(
        Hanging({"r1": LocalReplica()}), "r1", buffer_limit=10, on_change=lambda: None, on_orphans=lambda _: None
    )
    lane.start()
    await settle()
    reader = asyncio.ensure_future(first(lane.generate(request("q"))))
    await settle()
    await lane.close()
    with pytest.raises(ReplicaLostError):
        await asyncio.wait_for(reader, timeout=5)


class LateReply(LocalClient):
    """A client whose submissions arrive, but whose replies never come."""

    async def submit(
        self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
    ) -> Record | None:
        await super().submit(replica_id, lane_id, request)
        await asyncio.Event().wait()
        return None


async def test_an_answer_that_comes_before_the_reply_to_its_submission_is_read_at_once() -> None:
    replica = LocalReplica()
    lane = Lane(LateReply({"r1": replica}), "r1", buffer_limit=10, on_change=lambda: None, on_orphans=lambda _: None)
    lane.start()
    await settle()
    reader = asyncio.ensure_future(first(lane.generate(request("q"))))
    await settle()
    replica.engine.step()
    assert len(await asyncio.wait_for(reader, timeout=5)) == 1
    await lane.close()


async def test_a_reader_that_leaves_a_begun_answer_has_it_aborted_before_the_reply_to_its_submission() -> None:
    replica = LocalReplica()
    client = LateReply({"r1": replica})
    lane = Lane(client, "r1", buffer_limit=10, on_change=lambda: None, on_orphans=lambda _: None)
    lane.start()
    await settle()
    counts: list[Usage | None] = []
    answer = lane.generate(request("q"), counts.append)
    reader = asyncio.ensure_future(first(answer))
    await settle()
    replica.engine.step()
    await asyncio.wait_for(reader, timeout=5)
    await answer.aclose()
    await settle()
    assert client.aborts == [["q"]]
    replica.engine.step()
    await settle()
    assert counts == [Usage(1, 1, 0)]
    await lane.close()


async def test_a_submission_that_breaks_leaves_no_claim() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    replica.engine.submit = broken  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await first(lane.generate(request("q")))
    assert replica.actor._registry.requests == 0
    await lane.close()


def broken(request: GenerationRequest) -> None:
    raise ZeroDivisionError
