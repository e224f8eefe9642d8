"""The waiting sequences: a line per class and tenant, each in order of arrival.

1. Within a class the tenant with the lowest counter is next (``fairness``): a backlog of its own making does not bring
   a tenant forward.
2. Between the classes' next ones the level decides, which is the class raised by waiting; then the counter, then who
   arrived first.
3. Within a line a sequence whose prefix is cached now goes a little earlier: as much as if it had arrived up to
   ``bonus_s`` sooner, so it never passes one that came longer than that before it.
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
"""The tenant's counter, arrival, and the tenant; lower is earlier."""

_WINDOW = 8
"""Sequences at the front of a line that are asked for their cached prefix: bounds what a choice costs."""


def level(sequence: Sequence, now: float, ageing_s: float) -> int:
    """The class of a waiting sequence, raised by one for every ``ageing_s`` seconds of waiting, at most to the top."""
    return max(Priority.INTERACTIVE, sequence.priority - int(sequence.waited(now) / ageing_s))


class WaitingQueue:
    """``cached_share`` says how much of a sequence is in the prefix cache, 0 to 1."""

    def __init__(
        self, counters: TokenCounters, cached_share: Callable[[Sequence], float], ageing_s: float, bonus_s: float
    ) -> None:
        self._counters = counters
        self._cached_share = cached_share
        self._ageing_s = ageing_s
        self._bonus_s = bonus_s
        self._lines: dict[Line, list[Sequence]] = {}
        self._deadlines: list[tuple[float, int, Sequence]] = []  # a heap; those that have left are skipped when due
        self._serial = count()
        self._length = 0
        self._branches: Counter[Line] = Counter()  # of these, choices of requests that have begun

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Sequence]:
        for line in self._lines.values():
            yield from line

    @property
    def requests(self) -> int:
        """How many requests wait to begin, or to go on."""
        return self._length - self._branches.total()

    def by_line(self) -> dict[Line, int]:
        """The same, by class and tenant."""
        counts = ((key, len(line) - self._branches[key]) for key, line in self._lines.items())
        return {key: requests for key, requests in counts if requests}

    def push(self, sequence: Sequence) -> None:
        """Adds a sequence at its place by arrival; one that was preempted is in front of those that came later."""
        insort(self._lines.setdefault(_line(sequence), []), sequence, key=attrgetter("arrived"))
        self._length += 1
        if sequence.choice:
            self._branches[_line(sequence)] += 1
        if sequence.deadline is not None and sequence.generated == 0:
            heappush(self._deadlines, (sequence.deadline, next(self._serial), sequence))

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out. Raises ValueError if it is not there."""
        line = self._lines[_line(sequence)]
        line.remove(sequence)
        self._length -= 1
        if sequence.choice:
            self._branches[_line(sequence)] -= 1
        if not line:
            del self._branches[_line(sequence)]
            del self._lines[_line(sequence)]

    def overdue(self, now: float) -> list[Sequence]:
        """Those whose deadline has passed before their first token; the caller removes them."""
        due: list[Sequence] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            sequence = heappop(self._deadlines)[2]
            if sequence.status is Status.WAITING and sequence.generated == 0 and sequence not in due:
                due.append(sequence)
        return due

    def candidates(self, now: float) -> Iterator[Sequence]:
        """Who is to be started, best first.

        What the caller does with one counts before the next is chosen: if it has left, its line goes on, and its
        tenant's counter has moved; if it stays, its line is left out.
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

    def _turn(self, priority: Priority, tenant: str) -> Turn:
        return self._counters.of(tenant), self._lines[priority, tenant][0].arrived, tenant

    def _head(self, priority: Priority, heap: list[Turn], now: float) -> tuple[int, float, float, Priority]:
        """What the next one of a class is compared by with those of others."""
        while (current := self._turn(priority, heap[0][2])) > heap[0]:
            heapreplace(heap, current)  # the tenant's counter has moved on
        counter, arrived, tenant = heap[0]
        return level(self._lines[priority, tenant][0], now, self._ageing_s), counter, arrived, priority

    def _choose(self, line: list[Sequence]) -> Sequence:
        latest = line[0].arrived + self._bonus_s
        near = list(takewhile(lambda sequence: sequence.arrived < latest, line[:_WINDOW]))
        if len(near) < 2:
            return line[0]
        return min(near, key=lambda sequence: sequence.arrived - self._bonus_s * self._share(sequence))

    def _share(self, sequence: Sequence) -> float:
        try:
            return self._cached_share(sequence)
        except Exception:  # noqa: BLE001 - it raises again when the sequence is admitted, and there ends it
            return 0.0


def _line(sequence: Sequence) -> Line:
    return sequence.priority, sequence.tenant
