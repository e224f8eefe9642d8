"""What an engine counts since its start, over all schedulers that it has had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.scheduler.step_plan import Chunk


@dataclass(slots=True)
class Counters:
    """Of one engine."""

    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    expired: int = 0
    preemptions: int = 0  # by schedulers that have been replaced
    cached_tokens: int = 0  # likewise

    def count(self, chunks: Sequence[Chunk]) -> None:
        """A step that was computed."""
        self.steps += 1
        for chunk in chunks:
            self.prompt_tokens += max(0, min(chunk.end, chunk.sequence.prompt_length) - chunk.start)
