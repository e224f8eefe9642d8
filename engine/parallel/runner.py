"""Rank 0's runner: tells the other ranks what it does, and does it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.backend import StepRunner
from engine.kv.format import BlockCopy
from engine.parallel.crew import Crew
from engine.parallel.wire import Copy, Run, Scrub, Teller
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult


class ParallelRunner:
    """Implements ``StepRunner``: ``own`` runs rank 0's share, the ``crew`` the others. Whatever fails on one of them
    ends the crew, and every call from then on raises EngineDeadError."""

    def __init__(self, own: StepRunner, crew: Crew) -> None:
        self._own = own
        self._crew = crew
        self._teller = Teller()

    @property
    def kernels(self) -> str:
        """Those of rank 0, which the other ranks have as well."""
        return self._own.kernels

    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Computes the chunks, at most one of each sequence."""
        planned = list(chunks)
        self._crew.tell(Run(self._teller.rows(planned)))
        with self._crew.together():
            return self._own.run(planned)

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills blocks of each group of layers with zeros."""
        self._crew.tell(Scrub([list(each) for each in blocks]))
        self._own.scrub(blocks)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of blocks, in this order."""
        self._crew.tell(Copy(list(copies)))
        self._own.copy(copies)
