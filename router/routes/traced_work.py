"""Runs a generator of the pipeline within the trace of its request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from router.inference_request import Call
from router.ports.tracer import Tracer

T = TypeVar("T")


async def traced(
    tracer: Tracer, call: Call, work: Callable[[Call], AsyncGenerator[T, None]], parent: str | None
) -> AsyncGenerator[T, None]:
    """Yields what ``work`` yields, whose trace ends with it. ``parent`` is the caller's traceparent."""
    with tracer.request(parent) as trace:
        async with aclosing(work(replace(call, trace=trace))) as items:
            async for item in items:
                yield item
