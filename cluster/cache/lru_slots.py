"""``LruSlots``: keeps slots in LRU order, in several rings. Pure."""

from __future__ import annotations

from array import array


class LruSlots:
    """Rings of slots, from the least to the most recently used one: doubly linked lists in two arrays.

    A ring begins at its head, which is a slot that holds nothing else. A slot takes eight bytes: an OrderedDict takes
    twenty times as many, and the garbage collector visits each of its members.
    """

    def __init__(self) -> None:
        self._next = array("i")
        self._previous = array("i")

    def grow(self, slots: int) -> None:
        """Makes the slots 0 to ``slots`` - 1 known. Those that are new are in no ring. ``slots`` never falls."""
        more = slots - len(self._next)
        self._next.extend([-1] * more)
        self._previous.extend([-1] * more)

    def start(self, head: int) -> None:
        """Makes the slot ``head``, which is in no ring, the head of a new, empty ring."""
        self._next[head] = self._previous[head] = head

    def append(self, head: int, slot: int) -> None:
        """Adds ``slot``, which is in no ring, to the ring of ``head`` as its most recently used one."""
        last = self._previous[head]
        self._next[last] = self._previous[head] = slot
        self._previous[slot], self._next[slot] = last, head

    def remove(self, slot: int) -> None:
        """Removes ``slot`` from its ring."""
        before, after = self._previous[slot], self._next[slot]
        self._next[before], self._previous[after] = after, before
        self._next[slot] = self._previous[slot] = -1

    def oldest(self, head: int) -> int | None:
        """Returns the least recently used slot of the ring of ``head``; None if the ring is empty. The slot stays in
        it."""
        slot = self._next[head]
        return None if slot == head else slot
