"""``ParallelRunner``: rank 0's runner, which sends each operation to the other ranks and runs its own share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.backend import StepRunner
from engine.kv.format import BlockCopy
from engine.parallel.crew import Crew
from engine.parallel.wire import Copy, Run, Scrub, Teller
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult


class ParallelRunner:
    """Implements ``StepRunner``: ``own`` runs rank 0's share, the ``crew`` the others. A failure of any rank ends the
    crew, and every later call raises EngineDeadError."""

    def __init__(self, own: StepRunner, crew: Crew) -> None:
        self._own = own
        self._crew = crew
        self._teller = Teller()

    @property
    def kernels(self) -> str:
        """The kernels of rank 0, which the other ranks use too."""
        return self._own.kernels

    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Runs the model on ``chunks``, which are one step, at most one per sequence, on all ranks. Returns the result
        of rank 0."""
        planned = list(chunks)
        self._crew.tell(Run(self._teller.rows(planned)))
        with self._crew.together():
            return self._own.run(planned)

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills KV blocks with zeros on all ranks. ``blocks`` has a list of block ids for each group of layers."""
        self._crew.tell(Scrub([list(each) for each in blocks]))
        self._own.scrub(blocks)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of KV blocks on all ranks, in the given order."""
        self._crew.tell(Copy(list(copies)))
        self._own.copy(copies)

    def check_health(self) -> None:
        """Raises EngineDeadError if another rank has died, failed or hung, or this rank's device cannot be used any
        more."""
        self._crew.check_health()
        self._own.check_health()
