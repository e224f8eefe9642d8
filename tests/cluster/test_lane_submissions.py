"""Submissions on a lane: refused, lost, late or hanging, before and after their reader has left."""

from __future__ import annotations

import asyncio

import pytest

from cluster.lanes.dataclass_codec import Record
from cluster.lanes.lane import Lane
from cluster.lanes.lane_state import LaneState
from engine.api import GenerationRequest, Usage
from router.ports.tier_backend import ReplicaLostError, ReplicaOverloadedError
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import first, open_lane, request, settle


async def test_an_abort_never_overtakes_its_submission() -> None:
    replica = LocalReplica()
    lane, _ = await open_lane(replica)
    reader = asyncio.ensure_future(first(lane.generate(request("q", 100))))
    await asyncio.sleep(0)  # the submission is on its way, its answer is not
    reader.cancel()
    await settle()
    assert not replica.engine.live
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
