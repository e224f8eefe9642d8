"""``Fleet``: the replicas of a tier, from their start to their end."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.observation import Starting
from load_tests.simulation.prefix_cache import PrefixCaches
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.replica import Replica


class Fleet:
    """Slots that replicas start in, serve in and leave. A slot is used again.

    ``load`` has the rough cost of each slot for a request with no cached prefix; infinite where no replica serves. So a
    few of the cheapest of thousands are found in one pass of numpy.
    """

    def __init__(self, profile: ReplicaProfile, slots: int) -> None:
        self.profile = profile
        self._kv_tokens = profile.kv_tokens
        self.replicas: list[Replica | None] = [None] * slots
        self.load = np.full(slots, inf)
        self.starting: dict[int, Starting] = {}
        self.ready: dict[int, float] = {}  # slot → instant
        self.draining: set[int] = set()
        self.prefixes = PrefixCaches()
        self._free = list(range(slots))  # a heap
        self._used = 0  # slots that have ever been in use: the lowest are used first

    @property
    def used_load(self) -> NDArray[np.float64]:
        """``load`` without the slots at the end that were never in use."""
        return self.load[: self._used]

    @property
    def active(self) -> int:
        """Replicas that start or serve."""
        return len(self.starting) + len(self.ready)

    @property
    def allocated(self) -> int:
        """Replicas that hold GPUs."""
        return self.active + len(self.draining)

    def start(self, now: float) -> int | None:
        """Starts a replica. Returns its slot; None if there is none."""
        if not self._free:
            return None
        slot = heappop(self._free)
        self._used = max(self._used, slot + 1)
        self.starting[slot] = Starting(slot, now)
        return slot

    def make_ready(self, slot: int, now: float) -> None:
        """A replica that starts begins to serve."""
        del self.starting[slot]
        self.ready[slot] = now
        self.replicas[slot] = Replica(self.profile, slot, now)
        self.load[slot] = 0.0

    def cancel(self, count: int) -> int:
        """Ends up to ``count`` replicas that start, the latest first. Returns how many it ended."""
        chosen = sorted(self.starting.values(), key=lambda each: (-each.since, -each.slot))[:count]
        for each in chosen:
            del self.starting[each.slot]
            heappush(self._free, each.slot)
        return len(chosen)

    def drain(self, count: int, now: float) -> list[int]:
        """Tells the ``count`` serving replicas with the least to lose to end: fewest requests, then the last slot.

        Returns the requests that waited there, in order. Those at work are finished.
        """
        chosen = sorted(self.ready, key=lambda slot: (self.replica(slot).outstanding, -slot))[:count]
        taken: list[int] = []
        for slot in chosen:
            del self.ready[slot]
            self.load[slot] = inf
            self.prefixes.drop(slot)
            taken += self.replica(slot).withdraw(now)
            self.draining.add(slot)
            self.end_if_empty(slot)
        return taken

    def end_if_empty(self, slot: int) -> None:
        """Ends a draining replica that has finished its requests."""
        if slot in self.draining and not self.replica(slot).outstanding:
            self.draining.remove(slot)
            self._release(slot)

    def fail(self, slot: int, now: float) -> list[tuple[int, int]]:
        """A replica crashes. Returns its requests, each with the tokens that it has emitted."""
        lost = self.replica(slot).fail(now)
        self.ready.pop(slot, None)
        self.draining.discard(slot)
        self.load[slot] = inf
        self.prefixes.drop(slot)
        self._release(slot)
        return lost

    def replica(self, slot: int) -> Replica:
        """Returns the replica in a slot that serves or drains. Raises LookupError if there is none."""
        replica = self.replicas[slot]
        if replica is None:
            raise LookupError(f"slot {slot} is empty")
        return replica

    def note_load(self, replica: Replica) -> None:
        """Updates the rough cost of a replica, which has changed, if it serves."""
        slot = replica.slot
        if slot in self.ready:
            fullness = replica.kv_reserved / self._kv_tokens
            self.load[slot] = (replica.backlog_s + replica.scheduled_step_s) * (1.0 + fullness)

    def two_cheapest(self) -> list[int]:
        """Returns two slots with the least ``load``, in their order; of equal ones the lowest. More than two are
        in use.

        ``argpartition`` is slower, and takes others of equal ones on other processors.
        """
        load = self.used_load
        first = int(load.argmin())
        first_load, load[first] = load[first], inf
        second = int(load.argmin())
        load[first] = first_load
        return [first, second] if first < second else [second, first]

    def _release(self, slot: int) -> None:
        self.replicas[slot] = None
        heappush(self._free, slot)
