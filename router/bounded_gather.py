"""``bounded_gather``: calls coroutines side by side, with a limit on how many run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def bounded_gather(calls: Iterable[Callable[[], Awaitable[T]]], max_at_once: int) -> list[T | BaseException]:
    """Makes all ``calls``, at most ``max_at_once`` at a time. Returns for each, in order, its result or its error."""
    places = asyncio.Semaphore(max_at_once)

    async def within(call: Callable[[], Awaitable[T]]) -> T:
        async with places:
            return await call()

    return await asyncio.gather(*map(within, calls), return_exceptions=True)


def results_of(outcomes: Iterable[T | BaseException]) -> list[T]:
    """Returns the results of ``bounded_gather``. Raises the first error among them."""
    results = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results
