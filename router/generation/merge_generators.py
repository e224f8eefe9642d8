"""``merge``: merges several asynchronous generators into one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from router.aborted_prompts import AbortedPrompts

T = TypeVar("T")


def merge(streams: Sequence[AsyncGenerator[T, None]], aborts: AbortedPrompts) -> AsyncGenerator[T, None]:
    """Returns a generator of the items of all ``streams``, in the order in which they arrive.

    Closing it closes all ``streams``. An error of one stream ends it, and closes the others. ``aborts`` closes single
    streams by their index, at once, even while an item is awaited, so that no further item comes. It has no effect on a
    stream that is the only one: the caller closes the generator instead.
    """
    return streams[0] if len(streams) == 1 else _merge(streams, aborts)


async def _merge(streams: Sequence[AsyncGenerator[T, None]], aborts: AbortedPrompts) -> AsyncGenerator[T, None]:
    async with AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(aclosing(stream))
        waiting = {asyncio.ensure_future(_next(stream)): index for index, stream in enumerate(streams)}
        stack.push_async_callback(_cancel, waiting)
        aborts.listen(lambda aborted: _cancel_read(waiting, aborted))
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(future)
                if index in aborts.aborted:
                    if not future.cancelled():
                        future.exception()  # retrieved, so that asyncio does not log it; its stream is not wanted
                    await streams[index].aclose()
                    continue
                for item in future.result():
                    waiting[asyncio.ensure_future(_next(streams[index]))] = index
                    yield item


async def _next(stream: AsyncGenerator[T, None]) -> list[T]:
    """Returns the next item of ``stream`` in a list; at the end of the stream, an empty list."""
    try:
        return [await anext(stream)]
    except StopAsyncIteration:
        return []


def _cancel_read(waiting: Mapping[asyncio.Task[list[T]], int], index: int) -> None:
    """Cancels the pending read of one stream, which ends the stream."""
    for future, each in waiting.items():
        if each == index:
            future.cancel()


async def _cancel(waiting: dict[asyncio.Task[list[T]], int]) -> None:
    """Cancels the pending reads. Must run before the streams are closed: a generator cannot be closed during a read."""
    for future in waiting:
        future.cancel()
    if waiting:
        await asyncio.wait(waiting)
    for future in waiting:
        if not future.cancelled():
            future.exception()  # retrieved, so that asyncio does not log it; an earlier error is being raised
