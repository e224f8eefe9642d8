"""``WindowQueue``: which windows make the next batch. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")


class QueuedWindow(NamedTuple, Generic[Owner]):
    """One window of token ids. ``place`` is its index among the windows of ``owner``."""

    owner: Owner
    place: int
    tokens: Sequence[int]


@dataclass(slots=True)
class _Waiting(Generic[Owner]):
    owner: Owner
    windows: deque[QueuedWindow[Owner]] = field(default_factory=deque)


class WindowQueue(Generic[Owner]):
    """The windows that wait, by owner. Owners take turns, a window each, so that a long text does not hold up short
    ones. Owners are compared by identity."""

    def __init__(self, max_batch_tokens: int) -> None:
        """``max_batch_tokens``: the most tokens in a batch, each window counted as long as the longest, since attention
        needs them padded. A longer window is a batch by itself."""
        self._max_batch_tokens = max_batch_tokens
        self._waiting: deque[_Waiting[Owner]] = deque()

    def __len__(self) -> int:
        return sum(len(each.windows) for each in self._waiting)

    def add(self, owner: Owner, windows: Sequence[Sequence[int]]) -> None:
        """Adds the windows of a new owner, after those of all others."""
        queued = deque(QueuedWindow(owner, place, tokens) for place, tokens in enumerate(windows))
        if queued:
            self._waiting.append(_Waiting(owner, queued))

    def drop(self, owner: Owner) -> None:
        """Removes the windows of an owner that no longer waits for them."""
        self._waiting = deque(each for each in self._waiting if each.owner is not owner)

    def next_batch(self) -> list[QueuedWindow[Owner]]:
        """Takes the next batch out of the queue: none if no window waits."""
        batch: list[QueuedWindow[Owner]] = []
        longest = 0
        while self._waiting:
            first = self._waiting[0]
            longest = max(longest, len(first.windows[0].tokens))
            if batch and longest * (len(batch) + 1) > self._max_batch_tokens:
                break
            batch.append(first.windows.popleft())
            self._waiting.rotate(-1)
            if not first.windows:
                self._waiting.pop()
        return batch
