"""Offline generation (vLLM's ``LLM.generate``): prompts that an engine runs to their ends, with nothing beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.admission import Job
from engine.api import Conversation, Delta, EngineError, GenerationRequest, Priority, RequestError, SamplingParams
from engine.completion import Completion, completions

OfflinePrompt = str | Sequence[int] | Conversation
"""A prompt as text, as token ids, or as a conversation."""


class SteppedEngine(Protocol):
    """An engine whose steps are run by its caller: ``Engine``."""

    @property
    def has_work(self) -> bool: ...
    def prepare(self, request: GenerationRequest) -> Job: ...
    def enqueue(self, job: Job) -> None: ...
    def step(self) -> list[Delta]: ...


def generate(
    engine: SteppedEngine, prompts: Sequence[OfflinePrompt], params: SamplingParams | Sequence[SamplingParams] | None
) -> list[Completion]:
    """Runs all prompts to their end, and returns their completions. Arguments, result and errors are those of
    ``Engine.generate``."""
    if engine.has_work:
        raise EngineError("generate needs the engine for itself; requests are under way")
    settings = params if isinstance(params, Sequence) else [params or SamplingParams()] * len(prompts)
    if len(settings) != len(prompts):
        raise RequestError(f"{len(prompts)} prompts but {len(settings)} sampling parameters", "params")
    given = [prompt if isinstance(prompt, str | Conversation) else tuple(prompt) for prompt in prompts]
    asked = zip(given, settings, strict=True)
    jobs = [
        engine.prepare(GenerationRequest(str(i), *request, priority=Priority.BATCH)) for i, request in enumerate(asked)
    ]
    for job in jobs:
        engine.enqueue(job)
    deltas: dict[str, list[Delta]] = {job.sequence.request_id: [] for job in jobs}
    while engine.has_work:
        for delta in engine.step():
            deltas[delta.request_id].append(delta)
    asked_for = zip(deltas.values(), settings, strict=True)
    return [one for parts, each in asked_for for one in completions(parts, each)]
