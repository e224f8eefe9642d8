"""A request and its choices: one sequence until its first token, then as many as were asked for, or beams."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.admission import Job
from engine.api import Usage
from engine.search import Search


@dataclass(slots=True)
class Group:
    """``live`` are the jobs of choices that have not ended, by their numbers; of beams, where there is a ``search``."""

    first: Job
    live: dict[int, Job] = field(default_factory=dict)
    completion_tokens: int = 0  # of choices that have ended
    search: Search | None = None

    def __post_init__(self) -> None:
        self.live[self.first.sequence.choice] = self.first
        if self.first.sequence.candidates:
            self.search = Search(self.first)

    @property
    def usage(self) -> Usage:
        """So far; the prompt counts once, and of a search the answers that have come out."""
        running = 0 if self.search else sum(job.sequence.generated for job in self.live.values())
        prompt = self.first.sequence
        return Usage(prompt.prompt_length, self.completion_tokens + running, prompt.cached_tokens or 0)

    def leave(self, choice: int) -> None:
        """A choice has ended."""
        ended = self.live.pop(choice)
        if not self.search:
            self.completion_tokens += ended.sequence.generated
