"""Who owns a request, whatever order lanes close and submissions land in."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cluster.lanes.messages import DeltaRow
from cluster.lanes.outbox import LaneRegistry
from cluster.replica.tier_replica import INLINE_PROMPT
from engine.api import EngineDeadError, FinishReason, GenerationRequest, SamplingParams
from tests.cluster.engines import LocalReplica
from tests.cluster.test_lanes import settle


def row(request_id: str, last: bool = False) -> DeltaRow:
    return (request_id, (1,), "x", FinishReason.STOP.value if last else None, None, None, None, 0, None, last)


async def test_rows_reach_the_lane_that_owns_them_until_the_last() -> None:
    board = LaneRegistry()
    one, two = board.open("one"), board.open("two")
    assert board.claim("one", "a")
    assert board.claim("two", "b")
    board.deliver([row("a"), row("b"), row("a", last=True), row("a"), row("nobody")])
    assert [r[0] for r in await one.take(0)] == ["a", "a"]
    assert [r[0] for r in await two.take(0)] == ["b"]
    assert board.requests == 1


async def test_an_idle_lane_gives_an_empty_item_after_its_time() -> None:
    assert await LaneRegistry().open("one").take(0) == []


def test_closing_a_lane_names_its_unfinished_requests_only() -> None:
    board = LaneRegistry()
    board.open("one")
    board.open("two")
    board.claim("one", "a")
    board.claim("one", "done")
    board.release("done")
    board.claim("two", "b")
    assert board.close("one") == ["a"]
    assert board.owns("two", "b")


def test_an_id_with_an_owner_is_not_claimed_again() -> None:
    board = LaneRegistry()
    board.open("one")
    board.open("two")
    assert board.claim("one", "a")
    assert not board.claim("two", "a")
    assert not board.claim("closed", "b")
    assert board.close("two") == []
    assert board.owns("one", "a")


def test_one_lane_is_not_opened_twice() -> None:
    board = LaneRegistry()
    board.open("one")
    with pytest.raises(ValueError, match="open already"):
        board.open("one")


async def test_a_long_prompt_whose_lane_closes_meanwhile_leaves_no_orphan() -> None:
    replica = LocalReplica()
    lane = replica.actor.lane("one", replica_id="r")
    await anext(lane)
    gate = threading.Event()
    submit = replica.engine.submit

    def slow_submit(request: GenerationRequest) -> None:
        gate.wait(10)
        submit(request)

    replica.engine.submit = slow_submit  # type: ignore[method-assign]
    request = GenerationRequest("long", "x" * (INLINE_PROMPT + 1), SamplingParams(max_tokens=5))
    submission = asyncio.ensure_future(replica.actor.submit("one", request, replica_id="r"))
    await settle()
    await lane.aclose()
    gate.set()
    await submission
    assert not replica.engine.live


async def test_a_request_for_a_lane_that_is_not_open_is_refused() -> None:
    replica = LocalReplica()
    refusal = await replica.actor.submit("closed", GenerationRequest("a", "x"), replica_id="r")
    assert isinstance(refusal, EngineDeadError)
    assert not replica.engine.live
