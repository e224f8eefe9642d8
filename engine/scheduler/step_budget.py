"""``StepBudget``: the prompt tokens of the step that is being planned."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence

SHARED_STEP_DIVISOR = 8
"""In a step that has prompts of other tenants, the limit on tokens of tenants with surplus is divided by this."""


@dataclass(slots=True)
class StepBudget:
    """The number of prompt tokens that may still be added to a step, and the chunks that are in it."""

    tokens: int
    long: int  # tokens left for prompts that take more than one step
    surplus: int  # most tokens for prompts of tenants with surplus
    others_wait: bool = False  # for the first chunk of their prompts
    chunks: list[Chunk] = field(default_factory=list)  # planned so far
    load: list[int] = field(default_factory=lambda: [0, 0])  # tokens planned for short, and for long prompts
    surplus_taken: int = 0  # tokens planned for prompts of tenants with surplus

    @property
    def for_surplus(self) -> int:
        """The number of tokens that prompts of tenants with surplus may still have. They have few in a step that has
        another prompt, or may get one, which would wait for them."""
        alone = sum(self.load) == self.surplus_taken and not self.others_wait
        most = self.surplus if alone else max(1, self.surplus // SHARED_STEP_DIVISOR)
        return most - self.surplus_taken

    def take(self, sequence: Sequence, most: int, *, limited: bool) -> bool:
        """Plans a chunk of up to ``most`` pending tokens of the sequence. ``limited``: the limits on surplus apply.
        Returns False if the budget has no token left for it."""
        length = min(sequence.pending, most, self.tokens, self.long if sequence.chunked else self.tokens)
        if limited:
            length = min(length, self.for_surplus)
        if length < 1:
            return False
        self.chunks.append(Chunk(sequence, sequence.computed, length))
        self.tokens -= length
        if sequence.chunked:
            self.long -= length
        if limited:
            self.surplus_taken += length
        self.load[sequence.chunked] += length
        return True
