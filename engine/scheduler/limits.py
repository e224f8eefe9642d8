"""The bounds a scheduler keeps to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one step: tokens in all, tokens of one prompt, sequences that hold blocks. Then who goes before whom.

    ``EngineConfig`` says more of those that are settings.
    """

    batch_tokens: int
    prefill_chunk: int
    sequences: int
    partial_prefills: int = 2  # prompts that are computed piecemeal at the same time
    decode_slowdown: float | None = None  # how many times as long a step may take for long prompts; None: no limit
    ageing_s: float = 30.0  # seconds of waiting that raise a sequence by one class
    prefix_bonus_s: float = 1.0  # seconds of waiting that a wholly cached prompt is worth
    cooldown: int = 32  # tokens that a sequence generates undisturbed after it was preempted
    overtakes: int = 8  # sequences that may pass one that does not fit, before all wait for it
    weights: Mapping[str, float] = field(default_factory=dict)  # of tenants; 1 for those not named
