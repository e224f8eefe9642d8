"""From deltas to answers: several sequences merged, gathered whole or turned into frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing

from engine.api import Delta, FinishReason, GenerationRequest, SamplingParams, Usage
from engine.completion import completions
from router.openai.endpoint import Answer, Frames, total, usage_fields
from router.openai.errors import InvalidRequestError, ServerError, TimedOutError
from router.ports.tiers import TierBackend
from router.transport.sse import DONE

Batch = tuple[int, Sequence[Delta]]
"""The index of a sequence among those of its request, and what it was given."""


async def generate(
    backend: TierBackend, tier: str, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[Batch, None]:
    """The deltas of all ``requests``, each with its index. Closing it aborts whatever still runs.

    Raises what the backend raises, ServerError for a sequence that failed in the engine or ended unfinished,
    InvalidRequestError for one whose answer cannot be what was asked, and TimedOutError for one whose deadline passed
    before it began.
    """
    running = set(range(len(requests)))
    if len(requests) == 1:
        async with aclosing(backend.generate(tier, requests[0])) as batches:
            async for deltas in batches:
                yield 0, _checked(deltas, 0, running)
    else:
        async with aclosing(_merge(backend, tier, requests)) as merged:
            async for index, deltas in merged:
                yield index, _checked(deltas, index, running)
    if running:
        raise ServerError("The answer ended before it was complete.", "engine_error")


async def _merge(backend: TierBackend, tier: str, requests: Sequence[GenerationRequest]) -> AsyncGenerator[Batch, None]:
    """The deltas of several requests that run at the same time, as they come."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(backend.generate(tier, r))) for r in requests]
        waiting = {asyncio.ensure_future(_next(stream)): index for index, stream in enumerate(streams)}
        stack.push_async_callback(_cancel, waiting)
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(future)
                if deltas := future.result():
                    waiting[asyncio.ensure_future(_next(streams[index]))] = index
                    yield index, deltas


async def gather(batches: AsyncIterator[Batch], count: int, sampling: SamplingParams) -> tuple[list[Answer], Usage]:
    """The whole answers to ``count`` prompts, in order, with all choices of each; and their token counts together."""
    told: list[list[Delta]] = [[] for _ in range(count)]
    async for index, deltas in batches:
        told[index].extend(deltas)
    answers = [
        Answer(prompt * sampling.n + place, prompt, one.text, one.finish_reason, one.logprobs, one.prompt_logprobs)
        for prompt, each in enumerate(told)
        for place, one in enumerate(completions(each, sampling))
    ]
    return answers, total([each[-1].usage or Usage(0, 0, 0) for each in told])


async def frame(
    batches: AsyncIterator[Batch], frames: Frames, choices: int, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """SSE frames for every delta with text; those that arrive together leave together. Each prompt has ``choices``."""
    opened: set[int] = set()
    usages: list[Usage] = []
    async for prompt, deltas in batches:
        parts: list[str] = []
        for delta in deltas:
            index = prompt * choices + delta.choice
            if index not in opened:
                opened.add(index)
                parts.append(frames.opening(index))
            if delta.text or delta.logprobs:
                parts.append(frames.text(index, delta.text, delta.logprobs))
            if delta.finish_reason is not None:
                parts.append(frames.end(index, delta.finish_reason))
        if deltas[-1].last:
            usages.append(deltas[-1].usage or Usage(0, 0, 0))
        if body := "".join(parts):
            yield body.encode()
    if include_usage:
        yield frames.usage(json.dumps(usage_fields(total(usages)))).encode()
    yield DONE


def _checked(deltas: Sequence[Delta], index: int, running: set[int]) -> Sequence[Delta]:
    """``deltas``, unless their sequence failed. What came with the failure is not worth sending.

    Takes a sequence that has ended out of ``running``.
    """
    last = deltas[-1]
    reason = last.finish_reason
    if not last.last:
        return deltas
    if reason is FinishReason.REFUSED:
        raise InvalidRequestError(last.error or "The answer cannot be what it is to be.", "unsatisfiable")
    if reason is FinishReason.ERROR:
        raise ServerError("The model failed on this request.", "engine_error")
    if reason is FinishReason.DEADLINE:
        raise TimedOutError("No answer had begun by the deadline of the request.", "deadline_exceeded", "deadline_s")
    if reason is FinishReason.ABORT:
        raise ServerError("The request was aborted by the server.", "aborted")
    running.discard(index)
    return deltas


async def _next(stream: AsyncGenerator[Sequence[Delta], None]) -> Sequence[Delta]:
    """The next deltas of ``stream``; none at its end."""
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return ()


async def _cancel(waiting: dict[asyncio.Task[Sequence[Delta]], int]) -> None:
    """A generator cannot be closed while someone waits for its next value."""
    for future in waiting:
        future.cancel()
    if waiting:
        await asyncio.wait(waiting)
    for future in waiting:
        if not future.cancelled():
            future.exception()  # seen: the error that is being raised came first
