"""``in_thread_if_long``: keeps the event loop free while a long conversation is shortened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from router.inference_request import InferenceRequest
from router.prompts.prompt_size import prompt_characters

MIN_CHARACTERS = 20_000  # of prompts together; fewer are shortened within some milliseconds

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread_if_long(
    request: InferenceRequest, function: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T:
    """Calls a pure function and returns its result; in a thread if the prompts of ``request`` are long."""
    if sum(map(prompt_characters, request.prompts)) < MIN_CHARACTERS:
        return function(*arguments, **named)
    return await asyncio.to_thread(function, *arguments, **named)
