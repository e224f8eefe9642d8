"""The choices or beams of one request."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.admission import Job
from engine.api import Usage
from engine.beam_search import Search


@dataclass(slots=True)
class SequenceGroup:
    """A request in progress (vLLM's ``ParentRequest``): one sequence until its prompt is computed, then one for each
    choice or beam. ``live`` has the jobs that have not ended, by their numbers. ``search`` is None without beam search.
    """

    first: Job
    live: dict[int, Job] = field(default_factory=dict)
    completion_tokens: int = 0  # generated tokens of choices that have ended, or of the answers of a beam search
    search: Search | None = None

    def __post_init__(self) -> None:
        self.live[self.first.sequence.choice] = self.first
        if self.first.sequence.candidates:
            self.search = Search(self.first)

    @property
    def usage(self) -> Usage:
        """The token counts of the request so far. The prompt counts once. Of a beam search only finished answers
        count."""
        running = 0 if self.search else sum(job.sequence.generated for job in self.live.values())
        prompt = self.first.sequence
        return Usage(prompt.prompt_length, self.completion_tokens + running, prompt.cached_tokens or 0)

    def leave(self, choice: int) -> None:
        """Removes a choice or beam that has ended."""
        ended = self.live.pop(choice)
        if not self.search:
            self.completion_tokens += ended.sequence.generated
