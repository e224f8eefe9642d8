"""The beam search of one request, over sequences that all have the same length: one for each live hypothesis.

A beam that has been computed keeps its blocks and waits until all beams of its search have been computed; only then is
it known which of them continue. If one of them has no blocks, the beams that wait for it free theirs and keep their
candidates, so that two searches never wait for each other's blocks.
"""

from __future__ import annotations

from itertools import count

from engine.admission import Job
from engine.api import FinishReason, UnsatisfiableError
from engine.decode.beams import Beams, Candidates, FinishedHypothesis, Step
from engine.seeds import choice_seed
from engine.sequence import Status


class Search:
    """The beam search of one request. ``jobs`` are the jobs of its live hypotheses, best first."""

    def __init__(self, first: Job) -> None:
        sequence = first.sequence
        beam = sequence.sampling.beam
        if beam is None:
            raise ValueError("a request without a beam search")
        self._beams = Beams(beam, sequence.candidates, sequence.max_tokens)
        self._seed = sequence.seed
        self._rows: dict[Job, Candidates] = {}
        self.jobs = [first]
        self.names = count(1)  # numbers for new sequences of the request

    def take(self, job: Job, candidates: Candidates) -> bool:
        """Stores the candidates of a beam that has been computed. Returns whether all beams of the search have been
        computed now, so that ``advance`` may be called."""
        self._rows[job] = candidates
        return len(self._rows) == len(self.jobs)

    def stranded(self) -> list[Job]:
        """Returns the beams that hold blocks while another beam of the search waits for some."""
        if not any(job.sequence.status is Status.WAITING for job in self.jobs):
            return []
        return [job for job in self._rows if job.sequence.status is Status.RUNNING and job.sequence.held]

    def advance(self) -> list[Step]:
        """Takes one step of the search and clears the candidates of all beams. Returns the next beams, best first, each
        as its parent's place and a token; an empty list if the search is over. Raises UnsatisfiableError or
        GrammarError."""
        rows = [self._rows[job] for job in self.jobs]
        self._rows = {}
        return self._beams.advance(rows, self._ends)

    def follow(self, jobs: list[Job]) -> None:
        """Sets the next beams, in the order of the steps that ``advance`` returned, and gives each its own random
        numbers."""
        self.jobs = jobs
        for place, job in enumerate(jobs):
            job.sequence.seed = choice_seed(self._seed, place)

    def answers(self, most: int) -> list[FinishedHypothesis]:
        """Returns up to ``most`` answers found, best first. Raises UnsatisfiableError if there are none."""
        if not self._beams.finished:
            raise UnsatisfiableError("No answer can be found that is what it is to be.")
        return self._beams.finished[:most]

    def _ends(self, parent: int, token: int) -> FinishReason | None:
        """Returns why ``token`` would end the beam at the place ``parent``, or None."""
        return self.jobs[parent].would_end(token)
