"""The counters of one engine since its start. They survive the replacement of its scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.scheduler.step_plan import Chunk


@dataclass(slots=True)
class Counters:
    """Totals of one engine since its start: steps, tokens, and requests by how they ended."""

    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    expired: int = 0
    preemptions: int = 0  # only those of schedulers that were replaced; the current one counts its own
    cached_tokens: int = 0  # prompt tokens found in the prefix cache; only those of replaced schedulers

    def count(self, chunks: Sequence[Chunk]) -> None:
        """Counts one step, and the prompt tokens that its chunks computed."""
        self.steps += 1
        for chunk in chunks:
            prompt = chunk.sequence.prompt_length
            if chunk.start < prompt:
                self.prompt_tokens += min(chunk.end, prompt) - chunk.start
