"""The beam search of one request: a sequence for each live hypothesis, all of one length.

A beam that has been computed is held until the others of its search are there as well; only then it is known which of
them go on. A beam that must wait for one which has no blocks gives its own up, its candidates kept: so searches never
wait for each other.
"""

from __future__ import annotations

from itertools import count

from engine.admission import Job
from engine.api import FinishReason, UnsatisfiableError
from engine.decode.beams import Beams, Candidates, Step, Whole
from engine.decode.random import choice_seed
from engine.sequence import Status


class Search:
    """``jobs`` are those of the live hypotheses, best first."""

    def __init__(self, first: Job) -> None:
        sequence = first.sequence
        beam = sequence.sampling.beam
        if beam is None:
            raise ValueError("a request without a beam search")
        self._beams = Beams(beam, sequence.candidates, sequence.max_tokens)
        self._seed = sequence.seed
        self._rows: dict[Job, Candidates] = {}
        self.jobs = [first]
        self.names = count(1)  # of sequences to come

    def take(self, job: Job, candidates: Candidates) -> bool:
        """A beam has been computed; whether all have."""
        self._rows[job] = candidates
        return len(self._rows) == len(self.jobs)

    def stranded(self) -> list[Job]:
        """The beams that hold blocks while others of the search wait for some."""
        if not any(job.sequence.status is Status.WAITING for job in self.jobs):
            return []
        return [job for job in self._rows if job.sequence.status is Status.RUNNING and job.sequence.held]

    def advance(self) -> list[Step]:
        """Decides from the candidates of all beams where the next ones come from; none: the search is over."""
        rows = [self._rows[job] for job in self.jobs]
        self._rows = {}
        return self._beams.advance(rows, self._ends)

    def follow(self, jobs: list[Job]) -> None:
        """These are the next beams, in the order of the steps they came by. Each draws numbers of its own."""
        self.jobs = jobs
        for place, job in enumerate(jobs):
            job.sequence.seed = choice_seed(self._seed, place)

    def answers(self, most: int) -> list[Whole]:
        """Up to ``most`` of those that were found, best first. Raises UnsatisfiableError if there are none."""
        if not self._beams.wholes:
            raise UnsatisfiableError("No answer can be found that is what it is to be.")
        return self._beams.wholes[:most]

    def _ends(self, parent: int, token: int) -> FinishReason | None:
        return self.jobs[parent].would_end(token)
