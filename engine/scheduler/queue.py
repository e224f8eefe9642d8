"""The waiting queue. It has a list for each pair of priority class and tenant, in order of arrival.

1. Within a class the tenant with the lowest counter (``fairness``) is next, so that a tenant does not get ahead by a
   longer backlog.
2. Among the next sequences of all classes, the lowest level is first: the class, raised by waiting. Ties are broken by
   the tenant's counter, then by arrival.
3. Within a list, a sequence whose prefix is cached counts as having arrived up to ``bonus_s`` seconds earlier. So it
   never passes a sequence that arrived more than ``bonus_s`` before it.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count, takewhile
from operator import attrgetter

from engine.api import Priority
from engine.scheduler.fairness import TokenCounters
from engine.scheduler.queue_limit import Line
from engine.sequence import Sequence, Status

Turn = tuple[float, float, str]
"""Sort key of a tenant within a class: its counter, the arrival of its first sequence, and its name; the lowest is
next."""

_WINDOW = 8
"""Number of sequences at the front of a list whose cached prefix is looked up, which limits the cost of a choice."""


def level(sequence: Sequence, now: float, ageing_s: float) -> int:
    """Returns the priority class of a waiting sequence, raised by one class for every ``ageing_s`` seconds of waiting,
    at most to INTERACTIVE."""
    return max(Priority.INTERACTIVE, sequence.priority - int(sequence.waited(now) / ageing_s))


class WaitingQueue:
    """The waiting queue of one scheduler (vLLM's ``RequestQueue``). ``cached_share`` returns which share of a
    sequence's tokens is in the prefix cache, 0 to 1. A sequence rises by one class for each ``ageing_s`` seconds that
    it waits; a cached prefix counts as up to ``bonus_s`` seconds of waiting. Prompts of more than ``chunk`` tokens
    count as long."""

    def __init__(
        self,
        counters: TokenCounters,
        cached_share: Callable[[Sequence], float],
        ageing_s: float,
        bonus_s: float,
        chunk: int,
    ) -> None:
        self._chunk = chunk
        self._counters = counters
        self._cached_share = cached_share
        self._ageing_s = ageing_s
        self._bonus_s = bonus_s
        self._lines: dict[Line, list[Sequence]] = {}
        self._deadlines: list[tuple[float, int, Sequence]] = []  # a heap, also of sequences no longer in the queue
        self._serial = count()
        self._length = 0
        self._branches: Counter[Line] = Counter()  # sequences that are further choices of admitted requests
        self.long_prompts = 0  # waiting sequences whose prompts take several chunks
        self._tokens = dict.fromkeys(Priority, (0, 0))  # by class: uncached tokens of short, and of long prompts

    def __len__(self) -> int:
        """Returns the number of waiting sequences."""
        return self._length

    def __iter__(self) -> Iterator[Sequence]:
        """Yields the waiting sequences, in no particular order."""
        for line in self._lines.values():
            yield from line

    @property
    def requests(self) -> int:
        """Number of waiting requests, preempted ones included. Further choices and beams of a request do not count."""
        return self._length - self._branches.total()

    @property
    def tokens(self) -> dict[Priority, tuple[int, int]]:
        """By class, the tokens of the waiting sequences that were not in the prefix cache when they joined the queue:
        first those of prompts that one chunk completes, then those of longer ones."""
        return self._tokens

    def by_line(self) -> dict[Line, int]:
        """Returns the number of waiting requests by priority class and tenant, without zeros."""
        counts = ((key, len(line) - self._branches[key]) for key, line in self._lines.items())
        return {key: requests for key, requests in counts if requests}

    def push(self, sequence: Sequence) -> None:
        """Adds a sequence at its place by arrival time, so a preempted one is ahead of those that arrived later."""
        insort(self._lines.setdefault(_line(sequence), []), sequence, key=attrgetter("arrived"))
        self._length += 1
        sequence.uncached = round((1.0 - self._share(sequence)) * len(sequence.tokens))
        self._count(sequence, 1)
        if sequence.choice:
            self._branches[_line(sequence)] += 1
        if sequence.deadline is not None and sequence.generated == 0:
            heappush(self._deadlines, (sequence.deadline, next(self._serial), sequence))

    def remove(self, sequence: Sequence) -> None:
        """Removes a sequence. Raises ValueError if it is not in the queue."""
        line = self._lines[_line(sequence)]
        line.remove(sequence)
        self._length -= 1
        self._count(sequence, -1)
        if sequence.choice:
            self._branches[_line(sequence)] -= 1
        if not line:
            del self._branches[_line(sequence)]
            del self._lines[_line(sequence)]

    def overdue(self, now: float) -> list[Sequence]:
        """Returns the sequences without a first token whose deadline has passed. They stay in the queue: the caller
        removes them."""
        due: list[Sequence] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            sequence = heappop(self._deadlines)[2]
            if sequence.status is Status.WAITING and sequence.generated == 0 and sequence not in due:
                due.append(sequence)
        return due

    def candidates(self, now: float) -> Iterator[Sequence]:
        """Yields the sequences in the order in which they should be admitted.

        The caller acts on each one before it asks for the next. If it has admitted the sequence, the tenant's counter
        has changed, and the next of the same list is a candidate. If not, no others of this list follow.
        """
        heaps: dict[Priority, list[Turn]] = {priority: [] for priority in Priority}
        for priority, tenant in self._lines:
            heaps[priority].append(self._turn(priority, tenant))
        for heap in heaps.values():
            heapify(heap)
        while heads := [self._head(priority, heap, now) for priority, heap in heaps.items() if heap]:
            _, _, _, priority = min(heads)
            tenant = heappop(heaps[priority])[2]
            chosen = self._choose(self._lines[priority, tenant])
            yield chosen
            if chosen.status is not Status.WAITING and (priority, tenant) in self._lines:
                heappush(heaps[priority], self._turn(priority, tenant))

    def _count(self, sequence: Sequence, sign: int) -> None:
        """Adds the uncached tokens of a sequence to those of its class, or takes them away."""
        short, long = self._tokens[sequence.priority]
        if sequence.uncached > self._chunk:
            self._tokens[sequence.priority] = short, long + sign * sequence.uncached
            self.long_prompts += sign
        else:
            self._tokens[sequence.priority] = short + sign * sequence.uncached, long

    def _turn(self, priority: Priority, tenant: str) -> Turn:
        """Returns the sort key of a tenant within a class."""
        return self._counters.of(tenant), self._lines[priority, tenant][0].arrived, tenant

    def _head(self, priority: Priority, heap: list[Turn], now: float) -> tuple[int, float, float, Priority]:
        """Returns the sort key of the next sequence of a class among those of other classes."""
        while (current := self._turn(priority, heap[0][2])) > heap[0]:
            heapreplace(heap, current)  # its key in the heap is out of date
        counter, arrived, tenant = heap[0]
        return level(self._lines[priority, tenant][0], now, self._ageing_s), counter, arrived, priority

    def _choose(self, line: list[Sequence]) -> Sequence:
        """Returns the next sequence of a list, with the head start of cached prefixes."""
        latest = line[0].arrived + self._bonus_s
        near = list(takewhile(lambda sequence: sequence.arrived < latest, line[:_WINDOW]))
        if len(near) < 2:
            return line[0]
        return min(near, key=lambda sequence: sequence.arrived - self._bonus_s * self._share(sequence))

    def _share(self, sequence: Sequence) -> float:
        """Returns the cached share of a sequence, or 0 if looking it up fails."""
        try:
            return self._cached_share(sequence)
        except Exception:  # noqa: BLE001 - admitting the sequence raises it again, which ends the sequence
            return 0.0


def _line(sequence: Sequence) -> Line:
    """Returns the key of the list that a sequence belongs to."""
    return sequence.priority, sequence.tenant
