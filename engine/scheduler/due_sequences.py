"""``DueSequences``: waiting sequences without a first token, by an instant that each of them has.

Sequences leave the queue without being removed here, since a heap has no fast removal. Those that have left are dropped
when their instant comes, or once they are most of the heap: a client may set a deadline of a day, and a sequence holds
all its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from engine.sequence import Sequence, Status

FEW = 64
"""Entries that are not worth looking through."""


class DueSequences:
    """A heap of sequences by their instants, in seconds of the engine's clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Sequence]] = []
        self._serial = count()

    def __len__(self) -> int:
        """Returns the number of entries, those of sequences that have left the queue included."""
        return len(self._heap)

    def add(self, instant: float, sequence: Sequence, waiting: int) -> None:
        """Adds a sequence that has joined the queue, in which ``waiting`` sequences are now."""
        heappush(self._heap, (instant, next(self._serial), sequence))
        if len(self._heap) > 2 * waiting + FEW:
            # By sequence: one that was preempted before its first token has joined several times.
            self._heap = list({entry[2]: entry for entry in self._heap if _waits(entry[2])}.values())
            heapify(self._heap)

    def due(self, now: float) -> Iterator[Sequence]:
        """Removes the sequences whose instant has come, and yields those that still wait for their first token; one
        that has joined several times maybe as often."""
        while self._heap and self._heap[0][0] <= now:
            sequence = heappop(self._heap)[2]
            if _waits(sequence):
                yield sequence


def _waits(sequence: Sequence) -> bool:
    return sequence.status is Status.WAITING and sequence.generated == 0
