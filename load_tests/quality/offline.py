"""Puts items to an engine in this process, with no server between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.api import Conversation, Delta, FinishReason, GenerationRequest, RequestError, SamplingParams
from engine.engine import Engine
from load_tests.quality.options import QualityOptions
from load_tests.quality.outcome import Outcome, Reply
from load_tests.quality.question import Question

KV_CACHE_TOKENS = 32_768  # 32 sequences of 1,024; 1.5 GB for 30 layers of 3 heads of 64 in float32


def ask_engines(
    options: QualityOptions, items: Sequence[Question], max_tokens: int, tick: Callable[[], None]
) -> list[Outcome]:
    """Each model's replies to all items, one engine after the other; ``tick`` is called after each reply.

    Raises what ``Engine.from_pretrained`` raises.
    """
    outcomes = []
    for model in options.models:
        engine = Engine.from_pretrained(
            options.path(model),
            dtype=options.dtype,
            device=options.device,
            threads=options.threads,
            max_sequences=options.concurrency,
            max_waiting=len(items),
            kv_cache_tokens=KV_CACHE_TOKENS,
        )
        outcomes += ask_engine(engine, model, items, max_tokens, tick)
    return outcomes


def ask_engine(
    engine: Engine, model: str, items: Sequence[Question], max_tokens: int, tick: Callable[[], None]
) -> list[Outcome]:
    """The engine's greedy replies, in the order of ``items``. Its waiting queue must have room for all of them."""
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    replies: dict[str, Reply] = {}
    texts: dict[str, str] = {}
    for item in items:
        try:
            engine.add(GenerationRequest(item.id, Conversation(item.messages), sampling))
            texts[item.id] = ""
        except RequestError as error:
            replies[item.id] = Reply(problem=f"RequestError: {error}")
            tick()
    while engine.has_work:
        for delta in engine.step():
            texts[delta.request_id] += delta.text
            if delta.finish_reason is not None:
                replies[delta.request_id] = _reply(delta, texts[delta.request_id], model)
                tick()
    return [Outcome(model, item, replies[item.id]) for item in items]


def _reply(last: Delta, text: str, tier: str) -> Reply:
    if last.finish_reason is FinishReason.ERROR or last.usage is None:
        return Reply(problem=last.error or "the answer has no usage")
    return Reply(
        text=text,
        tier=tier,
        prompt_tokens=last.usage.prompt_tokens,
        completion_tokens=last.usage.completion_tokens,
    )
