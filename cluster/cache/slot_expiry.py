"""``SlotExpiry``: keeps slots in the order in which they expire. Pure."""

from __future__ import annotations

from array import array
from heapq import heapify, heappop, heappush

SLOT_BITS = 32
MIN_STALE = 1024


class SlotExpiry:
    """A heap of slots by expiry time, in milliseconds since the epoch, above 0."""

    def __init__(self) -> None:
        self._times = array("q")  # by slot; 0: cleared
        self._set = 0
        self._heap: list[int] = []  # time << SLOT_BITS | slot: objects that the garbage collector need not visit

    @property
    def waiting(self) -> int:
        """The length of the heap, which keeps cleared slots for a while."""
        return len(self._heap)

    def grow(self, slots: int) -> None:
        """Makes room for the slots 0 to ``slots`` - 1."""
        self._times.extend([0] * (slots - len(self._times)))

    def set(self, slot: int, expires_ms: int) -> None:
        """Sets the expiry time of ``slot``, which has none."""
        self._times[slot] = expires_ms
        self._set += 1
        heappush(self._heap, expires_ms << SLOT_BITS | slot)

    def clear(self, slot: int) -> None:
        """Removes the expiry time of ``slot``."""
        self._times[slot] = 0
        self._set -= 1
        if len(self._heap) > 2 * self._set + MIN_STALE:
            self._heap = [time << SLOT_BITS | slot for slot, time in enumerate(self._times) if time]
            heapify(self._heap)

    def time(self, slot: int) -> int:
        """Returns the expiry time of ``slot``; 0 if it has none."""
        return self._times[slot]

    def expired(self, now_ms: int) -> int | None:
        """Returns a slot that has expired by ``now_ms``; None if there is none. The caller clears it."""
        while self._heap and self._heap[0] >> SLOT_BITS <= now_ms:
            slot = self._heap[0] & ((1 << SLOT_BITS) - 1)
            if self._times[slot] == self._heap[0] >> SLOT_BITS:
                return slot
            heappop(self._heap)
        return None
