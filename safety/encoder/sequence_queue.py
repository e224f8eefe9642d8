"""``SequenceQueue``: which sequences make the next batch. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")


class QueuedSequence(NamedTuple, Generic[Owner]):
    """A sequence of token ids. ``place`` is its index among the sequences of ``owner``."""

    owner: Owner
    place: int
    tokens: Sequence[int]


@dataclass(slots=True)
class _Waiting(Generic[Owner]):
    owner: Owner
    sequences: deque[QueuedSequence[Owner]] = field(default_factory=deque)


class SequenceQueue(Generic[Owner]):
    """The sequences that wait, by owner. Owners take turns, a sequence each, so that a long text does not hold up short
    ones. Owners are compared by identity."""

    def __init__(self, max_batch_tokens: int) -> None:
        """``max_batch_tokens``: the most tokens in a batch, each sequence counted as long as the longest, since
        attention needs them padded. A longer sequence is a batch by itself."""
        self._max_batch_tokens = max_batch_tokens
        self._waiting: deque[_Waiting[Owner]] = deque()

    def __len__(self) -> int:
        return sum(len(each.sequences) for each in self._waiting)

    def add(self, owner: Owner, sequences: Sequence[Sequence[int]]) -> None:
        """Adds the sequences of a new owner, after those of all others."""
        queued = deque(QueuedSequence(owner, place, tokens) for place, tokens in enumerate(sequences))
        if queued:
            self._waiting.append(_Waiting(owner, queued))

    def drop(self, owner: Owner) -> None:
        """Removes the sequences of an owner that no longer waits for them."""
        self._waiting = deque(each for each in self._waiting if each.owner is not owner)

    def next_batch(self) -> list[QueuedSequence[Owner]]:
        """Takes the next batch out of the queue: none if no sequence waits."""
        batch: list[QueuedSequence[Owner]] = []
        longest = 0
        while self._waiting:
            first = self._waiting[0]
            longest = max(longest, len(first.sequences[0].tokens))
            if batch and longest * (len(batch) + 1) > self._max_batch_tokens:
                break
            batch.append(first.sequences.popleft())
            self._waiting.rotate(-1)
            if not first.sequences:
                self._waiting.pop()
        return batch
