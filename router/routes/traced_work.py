"""Runs a generator of the pipeline within the trace of its request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TypeVar

from router.inference_request import Call
from router.ports.tracer import Trace, Tracer
from router.transport.http_exchange import HttpExchange

T = TypeVar("T")


async def traced(
    tracer: Tracer, call: Call, work: Callable[[Call], AsyncGenerator[T, None]], exchange: HttpExchange
) -> AsyncGenerator[T, None]:
    """Yields what ``work`` yields, whose trace ends with it. It continues that of the caller, by the headers of
    ``exchange``."""
    with trace_of(tracer, call, exchange) as trace:
        async with aclosing(work(replace(call, trace=trace))) as items:
            async for item in items:
                yield item


@contextmanager
def trace_of(tracer: Tracer, call: Call, exchange: HttpExchange) -> Iterator[Trace]:
    """Returns the trace of ``call``, which ends with the context, as in ``traced``."""
    with tracer.request(exchange.header("traceparent"), exchange.joined("tracestate")) as trace:
        try:
            yield trace
        except (asyncio.CancelledError, GeneratorExit):
            if call.timed_out:
                trace.fails(TimeoutError())
            raise
