"""``StepBudget``: the prompt tokens of the step that is being planned."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence

SHARED_STEP_DIVISOR = 8
"""In a step that has prompts of other tenants, the limit on tokens of limited tenants is divided by this."""


@dataclass(slots=True)
class StepBudget:
    """The number of prompt tokens that may still be added to a step, and the chunks that are in it. ``standing`` is
    that of a limited prompt (``TenantLimits``); None: it is not limited."""

    tokens: int
    long: int  # tokens left for prompts that take more than one step
    limited: int  # most tokens for limited prompts
    others: int | None = None  # the highest rank of prompts of other tenants that wait or are in prefill; None: none
    chunks: list[Chunk] = field(default_factory=list)  # planned so far
    load: list[int] = field(default_factory=lambda: [0, 0])  # tokens planned for short, and for long prompts
    limited_taken: int = 0  # tokens planned for limited prompts

    def left(self, standing: int) -> int:
        """Returns the number of tokens that limited prompts may still have. They have few in a step that has, or may
        get, a prompt of another tenant that is not of a lower class, which would wait for them."""
        alone = self.others is None or self.others > standing
        return (self.limited if alone else max(1, self.limited // SHARED_STEP_DIVISOR)) - self.limited_taken

    def take(self, sequence: Sequence, most: int, standing: int | None = None) -> int:
        """Plans a chunk of up to ``most`` pending tokens of the sequence. Returns its length; 0 if the budget has no
        token left for it."""
        length = min(sequence.pending, most, self.tokens, self.long if sequence.chunked else self.tokens)
        if standing is not None:
            length = min(length, self.left(standing))
        if length < 1:
            return 0
        self.chunks.append(Chunk(sequence, sequence.computed, length))
        self.tokens -= length
        if sequence.chunked:
            self.long -= length
        if standing is not None:
            self.limited_taken += length
        self.load[sequence.chunked] += length
        return length
