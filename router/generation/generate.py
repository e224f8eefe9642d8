"""Generation: one sequence for each prompt of a request, merged into one stream of answer events."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from engine.api import GenerationRequest, RequestError, Usage
from router.answer_events import AnswerEvent, Finished
from router.errors import InternalServerError, refusal_of
from router.generation.attempts import run_attempts
from router.generation.merge import merge
from router.generation.output_processor import OutputProcessor
from router.inference_request import InferenceRequest
from router.ports.tier_backend import TierBackend


async def generate(
    backend: TierBackend, tier: str, request: InferenceRequest, tenant: str, max_lost: int
) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """The events of all answers to ``request``. Closing it aborts the work under way.

    Raises what the backend raises, and a RefusalError for a sequence that failed or ended unfinished.
    """
    prompts = [OutputProcessor(place, request.sampling, request.parsing) for place in range(len(request.prompts))]
    streams = [
        run_attempts(backend, tier, sequence, max_lost, prompt.push)
        for prompt, sequence in zip(prompts, engine_requests(request, tenant), strict=True)
    ]
    try:
        async with aclosing(merge(streams)) as merged:
            async for events in merged:
                yield events
    except RequestError as error:
        raise refusal_of(error, request.prompt_field) from None
    usages = [prompt.usage for prompt in prompts if prompt.usage is not None]
    if len(usages) < len(prompts):
        raise InternalServerError("The answer ended before it was complete.", "engine_error")
    yield [Finished(total(usages))]


def engine_requests(request: InferenceRequest, tenant: str) -> list[GenerationRequest]:
    """One request to the engine for each prompt. Prefix caches are shared within ``tenant`` alone.

    The ids are new: two clients may choose the same request id.
    """
    return [
        GenerationRequest(
            uuid.uuid4().hex,
            prompt,
            request.sampling,
            cache_salt=tenant,
            tenant=tenant,
            priority=request.priority,
            deadline_s=request.deadline_s,
        )
        for prompt in request.prompts
    ]


def total(usages: Sequence[Usage]) -> Usage:
    """The sum of token counts over several sequences."""
    return Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
