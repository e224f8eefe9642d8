"""``Gathering``: decides which texts that wait for the classifier are sent in one call, and when. Pure.

A call through a Serve handle costs both processes more than a millisecond, about as much as the encoder takes for ten
word pieces. What comes while a call is under way would only wait in the replica, so it waits here, and goes in one
call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_WAIT_S = 0.05
"""The longest that a text waits for a call that is under way: that one may be slow, and there may be other replicas."""

MAX_CHARACTERS = 1024
"""The most characters in a call of several texts: about a batch of the encoder. Once as many wait, they are sent: they
are the next batch. A longer text has a call of its own, so that it is given up with its caller."""

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False, slots=True)
class GatheredCall(Generic[Item]):
    """A call that is sent now: at least one item, in the order in which they came."""

    items: tuple[Item, ...]


class Gathering(Generic[Item]):
    """The items that wait to be sent, and the calls under way. Items are compared by identity. Times are in seconds of
    any monotonic clock.

    Items are sent at once if no call is under way that was sent within MAX_WAIT_S. Otherwise they wait until these have
    come back or are older, or until MAX_CHARACTERS wait.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Item, int]] = []
        self._characters = 0  # of the waiting items
        self._sent_at: dict[GatheredCall[Item], float] = {}

    def __len__(self) -> int:
        """Returns the number of items that wait."""
        return len(self._waiting)

    def add(self, item: Item, characters: int) -> None:
        """Adds an item with the number of its characters."""
        self._waiting.append((item, characters))
        self._characters += characters

    def drop(self, item: Item) -> bool:
        """Removes an item that still waits. Returns False if it does not wait any more."""
        for place, (waiting, characters) in enumerate(self._waiting):
            if waiting is item:
                del self._waiting[place]
                self._characters -= characters
                return True
        return False

    def due_at(self, now: float) -> float | None:
        """Returns the time at which the waiting items are sent unless a call comes back before. None: none waits."""
        if not self._waiting:
            return None
        if self._characters >= MAX_CHARACTERS or not self._sent_at:
            return now
        return max(now, max(self._sent_at.values()) + MAX_WAIT_S)

    def take(self, now: float) -> list[GatheredCall[Item]]:
        """Returns the calls to be sent now, with all items that wait; [] if it is too early."""
        due_at = self.due_at(now)
        if due_at is None or due_at > now:
            return []
        calls = [GatheredCall(tuple(items)) for items in _bounded(self._waiting)]
        self._waiting, self._characters = [], 0
        self._sent_at |= dict.fromkeys(calls, now)
        return calls

    def ended(self, call: GatheredCall[Item]) -> None:
        """Notes that a call has come back, failed or been given up."""
        del self._sent_at[call]


def _bounded(waiting: list[tuple[Item, int]]) -> list[list[Item]]:
    """Cuts items with their characters into runs of at most MAX_CHARACTERS, or of a single item."""
    runs: list[list[Item]] = []
    room = 0
    for item, characters in waiting:
        if not runs or characters > room:
            runs.append([])
            room = MAX_CHARACTERS
        runs[-1].append(item)
        room -= characters
    return runs
