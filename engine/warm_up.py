"""``warm_up``: computes made-up prompts in a new engine, before it is ready (vLLM's profile run).

The first prompt fills a chunk and then decodes alone, the others are short and decode together. So the steps differ in
prompt tokens and in decodes, and ``StepCostFit`` learns what each costs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.api import FAILURE_REASONS, EngineDeadError, SamplingParams
from engine.config import EngineConfig

if TYPE_CHECKING:
    from engine.engine import Engine

logger = logging.getLogger(__name__)

Prompts = list[tuple[int, ...]]
"""Token ids of prompts that are computed together."""

TOGETHER = 32
"""Most short prompts of a group."""

SHORT_TOKENS = 8
"""Tokens of a short prompt."""

OUTPUT_TOKENS = 8
"""Tokens of each answer. A draft model proposes some of them only if the answer has more than a few."""

ROUNDS = 2
"""In the first one compilers run and memory is touched for the first time, so that its times say nothing of later
steps."""

_STRIDE = 7_919
"""Distance of the token ids in a prompt. A prime, so that they differ for as long as the vocabulary allows."""


def warm_up(engine: Engine) -> None:
    """Computes made-up prompts, so that fewer requests of clients wait for compilers, and what a step costs is roughly
    known before the first one. Leaves no counts, no metrics, no cached prefix and no means of step times behind.

    Replicas that start side by side slow each other down. So what is learnt here counts little (``StepCostFit``), and
    the autoscaler, which believes what it has seen for long, learns of requests alone.

    Raises EngineDeadError if all prompts fail, or the device or another rank has failed, and EngineError if requests
    are in progress.
    """
    model, began = engine.model_info, time.monotonic()
    groups = warm_up_prompts(engine.config, model.context_length, model.vocab_size, engine.cache_tokens)
    for _ in range(ROUNDS):
        engine.speed.reset()
        faults = [fault for group in groups for fault in _faults(engine, group)]
        if faults:
            logger.warning("%d of %d prompts of the warm-up failed: %s", len(faults), sum(map(len, groups)), faults[0])
        if faults and len(faults) == sum(map(len, groups)):
            raise EngineDeadError(f"the model cannot compute: {faults[0]}")
        engine.reset_counts()
    engine.speed.discount()
    logger.info("The warm-up took %.1f s.", time.monotonic() - began)


def _faults(engine: Engine, prompts: Prompts) -> list[str | None]:
    """Computes ``prompts`` together. Returns the errors of those that failed. Raises EngineDeadError if the device or
    another rank has failed."""
    params = SamplingParams(max_tokens=OUTPUT_TOKENS, temperature=0.0, ignore_eos=True)
    answers = engine.generate(prompts, params)
    return [one.error for one in answers if one.finish_reason in FAILURE_REASONS]


def warm_up_prompts(config: EngineConfig, context: int, vocab_size: int, cache_tokens: int) -> Sequence[Prompts]:
    """Returns the groups of prompts to be computed one after the other, each with OUTPUT_TOKENS tokens out.

    ``context`` is the model's, in tokens. ``cache_tokens`` is what the KV cache holds: a group fills at most half of
    it. Where not even a short prompt fits, there is none.
    """
    room = min(context, cache_tokens // 2) - OUTPUT_TOKENS
    short = min(SHORT_TOKENS, room)
    together = min(TOGETHER, config.max_sequences, cache_tokens // 2 // max(short + OUTPUT_TOKENS, 1))
    shapes = [(min(config.prefill_chunk, room), 1), (short, together)]
    return [
        [tuple((at + _STRIDE * token) % vocab_size for token in range(length)) for at in range(count)]
        for length, count in shapes
        if length > 0 and count > 0
    ]
