"""Puts items to an OpenAI-compatible server, with the client that users have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import openai
from openai.types.chat import ChatCompletionMessageParam

from load_tests.quality.options import QualityOptions
from load_tests.quality.outcome import Outcome, Reply
from load_tests.quality.question import Question

TIER_HEADER = "x-manta-tier"


class UnreachableError(Exception):
    """The server cannot be asked at all: it is not there, refuses the key, or lacks a model."""


async def ask_server(
    options: QualityOptions, items: Sequence[Question], max_tokens: int, tick: Callable[[], None]
) -> list[Outcome]:
    """Each model's replies to all items; ``tick`` is called after each. Raises UnreachableError before the first.

    A request that fails later is a reply with a problem. Nothing is tried again: a retry would hide the fault.
    """
    slots = asyncio.Semaphore(options.concurrency)
    base = options.url.rstrip("/")
    url = base if base.endswith("/v1") else f"{base}/v1"
    async with openai.AsyncOpenAI(
        base_url=url, api_key=options.key, max_retries=0, timeout=options.timeout_s
    ) as client:
        await check(client, options.models)

        async def one(model: str, item: Question) -> Outcome:
            async with slots:
                reply = await ask(client, model, item, max_tokens)
            tick()
            return Outcome(model, item, reply)

        # One model after the other: together they would only wait for each other's cores.
        return [o for m in options.models for o in await asyncio.gather(*(one(m, item) for item in items))]


async def check(client: openai.AsyncOpenAI, models: Sequence[str]) -> None:
    """Raises UnreachableError unless the server lists all ``models``."""
    try:
        listed = [model.id async for model in client.models.list()]
    except openai.OpenAIError as error:
        raise UnreachableError(f"{client.base_url} cannot be asked: {describe(error)}") from None
    missing = [model for model in models if model not in listed]
    if missing:
        raise UnreachableError(f"{client.base_url} has {', '.join(listed)}, but not {', '.join(missing)}")


async def ask(client: openai.AsyncOpenAI, model: str, item: Question, max_tokens: int) -> Reply:
    """One greedy answer."""
    try:
        response = await client.chat.completions.with_raw_response.create(
            model=model,
            messages=[_turn(m.role, m.content) for m in item.messages],
            max_tokens=max_tokens,
            temperature=0,
        )
        completion = response.parse()
    except openai.OpenAIError as error:
        return Reply(problem=describe(error))
    if not completion.choices or completion.usage is None:
        return Reply(problem="the answer has no choice or no usage")
    return Reply(
        text=completion.choices[0].message.content or "",
        tier=response.headers.get(TIER_HEADER),
        prompt_tokens=completion.usage.prompt_tokens,
        completion_tokens=completion.usage.completion_tokens,
    )


def describe(error: openai.OpenAIError) -> str:
    """The kind of error, its status and its words, in a line."""
    status = f" {error.status_code}" if isinstance(error, openai.APIStatusError) else ""
    return f"{type(error).__name__}{status}: {error}"


def _turn(role: str, content: str) -> ChatCompletionMessageParam:
    match role:
        case "system":
            return {"role": "system", "content": content}
        case "assistant":
            return {"role": "assistant", "content": content}
        case _:
            return {"role": "user", "content": content}
