from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lanes.delta_stream import DeltaStream, SlowReaderError
from cluster.lanes.messages import pack, unpack
from engine.api import Delta, FinishReason, Logprob, TokenLogprobs, Usage
from router.ports.tiers import ReplicaLostError


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


@given(
    st.builds(
        Delta,
        st.text(max_size=5),
        st.lists(st.integers(0, 100)).map(tuple),
        st.text(max_size=5),
        st.sampled_from(FinishReason),
        st.builds(Usage, st.integers(0), st.integers(0), st.integers(0)),
        st.none() | st.text(max_size=5),
    )
    | st.builds(
        Delta,
        st.text(max_size=5),
        st.lists(st.integers(0, 100)).map(tuple),
        st.text(max_size=5),
        choice=st.integers(0, 127),
        logprobs=st.none() | st.just((TokenLogprobs(Logprob(1, "a", b"a", -0.5), ()),)),
    )
)
def test_a_delta_survives_the_wire(sent: Delta) -> None:
    assert unpack(pack([sent])[0]) == sent
