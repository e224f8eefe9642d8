"""``Limits``: the settings of a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from engine.config import EngineConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of a scheduler (vLLM's ``SchedulerConfig``): first the limits of a step, then those that order
    sequences. ``EngineConfig`` describes those that are its fields."""

    batch_tokens: int  # most tokens in a step
    prefill_chunk: int  # most prompt tokens of one sequence in a step
    sequences: int  # most running sequences, which hold KV blocks
    partial_prefills: int = 2  # most prompts in chunked prefill at the same time
    decode_slowdown: float | None = None  # limit on a step's time with long prompts, as a multiple; None: no limit
    ageing_s: float = 30.0  # seconds of waiting that raise a sequence by one priority class
    prefix_bonus_s: float = 1.0  # head start of a sequence whose whole prompt is cached, in seconds
    cooldown: int = 32  # tokens that a preempted sequence generates before it may be preempted again
    overtakes: int = 8  # later sequences admitted past one that does not fit, before all wait for it
    weights: Mapping[str, float] = field(default_factory=dict)  # weights of tenants by name; 1 for others

    @classmethod
    def of(cls, config: EngineConfig) -> Self:
        """Returns the settings of the scheduler of an engine with this ``config``."""
        return cls(
            batch_tokens=config.max_batch_tokens,
            prefill_chunk=config.prefill_chunk,
            sequences=config.max_sequences,
            partial_prefills=config.max_partial_prefills,
            decode_slowdown=config.max_decode_slowdown,
            ageing_s=config.ageing_s,
            prefix_bonus_s=config.prefix_bonus_s,
            cooldown=config.preemption_cooldown,
            weights=config.tenant_weights,
        )
