"""A pool compares the first token of a request with its prediction, and learns from some."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from engine.api import BeamSearch, GenerationRequest, Priority, SamplingParams
from tests.cluster.lanes import settle
from tests.cluster.pools import measured_pool, request


async def test_the_first_token_of_a_request_is_compared_with_the_prediction() -> None:
    pool, client, seen = await measured_pool("a")
    lane = await pool.acquire(request("q"))
    async with aclosing(lane.generate(request("q"))) as batches:
        reader = asyncio.ensure_future(anext(batches))
        await settle()
        assert not seen
        client.replicas["a"].engine.step()
        await reader
        await settle()
    ((predicted_s, measured_s),) = seen
    assert predicted_s == pytest.approx(0.01)
    assert measured_s > 0
    assert pool.snapshot().loads["a"].correction != 1.0
    await pool.close()


@pytest.mark.parametrize(
    "sampling", [SamplingParams(best_of=3, max_tokens=3), SamplingParams(beam=BeamSearch(width=2))]
)
async def test_what_is_sent_at_its_end_teaches_nothing_of_first_tokens(sampling: SamplingParams) -> None:
    pool, client, seen = await measured_pool("a")
    asked = GenerationRequest("q", "hi", sampling)
    lane = await pool.acquire(asked)
    async with aclosing(lane.generate(asked)) as batches:
        reader = asyncio.ensure_future(anext(batches))
        await settle()
        client.replicas["a"].engine.step()
        await reader
    assert not seen
    await pool.close()


async def test_a_surplus_request_is_placed_as_batch_work_and_its_wait_teaches_nothing() -> None:
    pool, client, seen = await measured_pool("a")
    surplus = GenerationRequest(
        "q", "x" * 400, SamplingParams(max_tokens=3), priority=Priority.INTERACTIVE, surplus=True
    )
    lane = await pool.acquire(surplus)
    high, _, batch = pool.snapshot().loads["a"].queued_short
    assert (high, batch > 0) == (0, True)
    async with aclosing(lane.generate(surplus)) as batches:
        reader = asyncio.ensure_future(anext(batches))
        await settle()
        client.replicas["a"].engine.step()
        await reader
        await settle()
    assert not seen
    assert pool.snapshot().loads["a"].correction == 1.0
    await pool.close()
