"""The engine in a process of its own, over which the load test of overload runs the router."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from engine.api import FinishReason, GenerationRequest, RequestError, SamplingParams
from load_tests.engine_process_backend import TIER, EngineProcessBackend
from load_tests.overload.server import MODEL


async def test_it_answers_reports_its_load_refuses_aborts_and_ends_with_the_router() -> None:
    backend = EngineProcessBackend(str(MODEL), dtype="float32", threads=1, max_sequences=2)
    await backend.start(lambda orphans: None)
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)

    batches = [each async for each in backend.generate(TIER, GenerationRequest("whole", "Hello", params))]
    assert sum(len(delta.token_ids) for deltas in batches for delta in deltas) == 8
    assert batches[-1][-1].finish_reason is FinishReason.LENGTH
    [snapshot] = backend.snapshot()
    assert snapshot.loads
    assert snapshot.context_length

    with pytest.raises(RequestError):
        async for _ in backend.generate(TIER, GenerationRequest("too long", "Hello " * 100_000, params)):
            pass

    given_up: list[object] = []
    long = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    async with aclosing(
        backend.generate(TIER, GenerationRequest("left", "Hi", long), on_usage=given_up.append)
    ) as left:
        async for _ in left:
            break
    assert given_up == [None]

    await backend.close()
    assert not backend.alive
