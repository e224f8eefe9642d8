"""Runs a generator of the pipeline within the trace of its request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TypeVar

from router.inference_request import Call
from router.ports.tracer import Trace, Tracer

T = TypeVar("T")


async def traced(
    tracer: Tracer, call: Call, work: Callable[[Call], AsyncGenerator[T, None]], parent: str | None
) -> AsyncGenerator[T, None]:
    """Yields what ``work`` yields, whose trace ends with it. ``parent`` is the caller's traceparent."""
    with trace_of(tracer, call, parent) as trace:
        async with aclosing(work(replace(call, trace=trace))) as items:
            async for item in items:
                yield item


@contextmanager
def trace_of(tracer: Tracer, call: Call, parent: str | None) -> Iterator[Trace]:
    """Returns the trace of ``call``, which ends with the context."""
    with tracer.request(parent) as trace:
        try:
            yield trace
        except (asyncio.CancelledError, GeneratorExit):
            if call.timed_out:
                trace.fails(TimeoutError())
            raise
