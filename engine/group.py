"""A request and its choices: one sequence until its first token, then as many as were asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.admission import Job
from engine.api import Usage


@dataclass(slots=True)
class Group:
    """``live`` are the jobs of choices that have not ended, by their numbers."""

    first: Job
    live: dict[int, Job] = field(default_factory=dict)
    completion_tokens: int = 0  # of choices that have ended

    def __post_init__(self) -> None:
        self.live[self.first.sequence.choice] = self.first

    @property
    def usage(self) -> Usage:
        """So far; the prompt counts once."""
        running = sum(job.sequence.generated for job in self.live.values())
        prompt = self.first.sequence
        return Usage(prompt.prompt_length, self.completion_tokens + running, prompt.cached_tokens or 0)

    def leave(self, choice: int) -> None:
        """A choice has ended."""
        self.completion_tokens += self.live.pop(choice).sequence.generated
