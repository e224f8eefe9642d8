from __future__ import annotations

import asyncio

import pytest

from cluster.lanes.delta_stream import DeltaStream
from engine.api import Delta, FinishReason, Usage
from router.ports.tier_backend import ReplicaLostError, SlowReaderError


def delta(text: str, last: bool = False) -> Delta:
    return Delta("r", (1,), text, FinishReason.STOP if last else None, Usage(1, 1, 0) if last else None)


async def test_a_slow_reader_gets_everything_at_once_in_order() -> None:
    stream = DeltaStream(10)
    for text in "abc":
        stream.push(delta(text))
    assert "".join(d.text for d in await stream.take()) == "abc"


async def test_a_waiting_reader_is_woken_by_the_next_delta() -> None:
    stream = DeltaStream(10)
    reader = asyncio.ensure_future(stream.take())
    await asyncio.sleep(0)
    stream.push(delta("x"))
    assert [d.text for d in await reader] == ["x"]


async def test_a_fault_is_raised_after_what_came_before_it() -> None:
    stream = DeltaStream(10)
    stream.push(delta("x"))
    stream.fail(ReplicaLostError("gone"))
    assert len(await stream.take()) == 1
    with pytest.raises(ReplicaLostError):
        await stream.take()


async def test_a_fault_after_the_last_delta_changes_nothing() -> None:
    stream = DeltaStream(10)
    stream.push(delta("x", last=True))
    stream.fail(ReplicaLostError("gone"))
    assert (await stream.take())[-1].finish_reason is FinishReason.STOP


async def test_a_reader_too_far_behind_is_given_up_once() -> None:
    stream = DeltaStream(2)
    assert [stream.push(delta("x")) for _ in range(5)] == [True, True, False, True, True]
    assert len(await stream.take()) == 3
    with pytest.raises(SlowReaderError):
        await stream.take()


async def test_the_counts_of_a_reader_given_up_come_with_its_last_delta() -> None:
    stream = DeltaStream(1)
    for each in (delta("x"), delta("x"), delta("", last=True)):
        stream.push(each)
    assert stream.usage == Usage(1, 1, 0)


async def test_what_arrives_while_the_reader_waits_to_be_woken_is_no_overflow() -> None:
    stream = DeltaStream(1)
    reader = asyncio.ensure_future(stream.take())
    await asyncio.sleep(0)
    assert all(stream.push(Delta("q", (1,), text)) for text in "abc")
    assert [delta.text for delta in await reader] == ["a", "b", "c"]
    assert stream.push(Delta("q", (1,), "d"))
    assert not stream.push(Delta("q", (1,), "e")), "now it reads too slowly"
