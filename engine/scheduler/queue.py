"""The waiting queue. It has a list for each pair of priority class and tenant, in the order in which they are due.

A sequence is due when its objective for the first token ends, or its deadline, and at the latest ``ageing_s`` after its
arrival: without either, the order is that of arrival. A sequence whose objective has passed before its first token is
relegated: it waits in another list, as a sequence of the lowest class does that arrives then, so that it delays none
that can still be in time.

1. Within a class the tenant with the lowest counter (``fairness``) is next, so that a tenant does not get ahead by a
   longer backlog.
2. Surplus sequences (``GenerationRequest.surplus``) have classes of their own, which come after all others.
3. Among the next sequences of all classes, the lowest level is first: the class, raised by waiting. Ties are broken by
   the tenant's counter, then by arrival.
4. Within a list, a sequence whose prefix is cached counts as due up to ``bonus_s`` seconds earlier. So it never passes
   a sequence that is due more than ``bonus_s`` before it.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import takewhile

from engine.api import Priority
from engine.scheduler.due_sequences import DueSequences
from engine.scheduler.fairness import TokenCounters
from engine.scheduler.queue_limit import Line
from engine.sequence import Sequence, Status

Turn = tuple[float, float, str]
"""Sort key of a tenant within a class: its counter, the arrival of its first sequence, and its name; the lowest is
next."""

_Key = tuple[int, str, bool]
"""A list of the queue: the rank of its class, its tenant, and whether it has the relegated sequences."""

_Band = tuple[int, bool]
"""The rank of a class, and whether its relegated sequences are meant."""

_WINDOW = 8
"""Number of sequences at the front of a list whose cached prefix is looked up, which limits the cost of a choice."""


def level(sequence: Sequence, now: float, ageing_s: float) -> int:
    """Returns the priority class of a waiting sequence, raised by one class for every ``ageing_s`` seconds of waiting,
    at most to INTERACTIVE. A relegated sequence begins in the lowest class, and surplus sequences in classes below
    BATCH. ``now`` is in seconds of the engine's clock."""
    rank, waited = sequence.rank, sequence.waited(now)
    if sequence.relegated_at is not None:
        rank, waited = lowest_rank(sequence), max(0.0, now - sequence.relegated_at)
    return max(Priority.INTERACTIVE, rank - int(waited / ageing_s))


def lowest_rank(sequence: Sequence) -> int:
    """Returns the rank of the class batch, or, for a surplus sequence, that of surplus batch sequences."""
    return Priority.BATCH + sequence.rank - sequence.priority


class WaitingQueue:
    """The waiting queue of one scheduler (vLLM's ``RequestQueue``). ``cached_share`` returns which share of a
    sequence's tokens is in the prefix cache, 0 to 1. A sequence rises by one class for each ``ageing_s`` seconds that
    it waits; a cached prefix counts as up to ``bonus_s`` seconds of waiting. Prompts of more than ``chunk`` tokens
    count as long. Instants are seconds of the engine's clock."""

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
        self._lines: dict[_Key, list[Sequence]] = {}
        self._deadlines, self._objectives = DueSequences(), DueSequences()
        self._length = 0
        self._branches: Counter[Line] = Counter()  # sequences that are further choices of admitted requests
        self._sequences: Counter[str] = Counter()  # by tenant
        self._tokens: Counter[str] = Counter()  # of these, not in the prefix cache when they joined; by tenant
        self.long_prompts = 0  # waiting sequences whose prompts take several chunks
        # By class, INTERACTIVE first: tokens of waiting sequences that were not in the prefix cache when they joined.
        self.short_tokens = [0] * len(Priority)  # of prompts that one chunk completes
        self.long_tokens = [0] * len(Priority)  # of longer ones

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

    def front(self, but: Collection[str]) -> tuple[int, float] | None:
        """Returns the highest rank of the waiting sequences of all tenants but those in ``but``, and the lowest counter
        of these tenants; None if none waits. Relegated sequences count as of class batch."""
        ranks, counters = [], []
        for rank, tenant, relegated in self._lines:
            if tenant not in but:
                ranks.append(max(rank, Priority.BATCH) if relegated else rank)
                counters.append(self._counters.of(tenant))
        return (min(ranks), min(counters)) if ranks else None

    @property
    def tenants(self) -> Collection[str]:
        """The tenants that have waiting sequences."""
        return self._sequences.keys()

    def tenants_with_more(self, tokens: int, sequences: int) -> list[str]:
        """Returns the tenants that have at least ``sequences`` waiting sequences, or several of which more than
        ``tokens`` tokens have to be computed."""
        return [
            name
            for name, count in self._sequences.items()
            if count >= sequences or (count > 1 and self._tokens[name] > tokens)
        ]

    def by_line(self) -> dict[Line, int]:
        """Returns the number of waiting requests by priority class and tenant, without zeros."""
        counts: Counter[Line] = Counter()
        for line in self._lines.values():
            counts[_line(line[0])] += len(line)
        counts.subtract(self._branches)
        return {key: requests for key, requests in counts.items() if requests}

    def push(self, sequence: Sequence) -> None:
        """Adds a sequence at its place by the instant at which it is due, so a preempted one is ahead of those that
        arrived later. One with a first token is not relegated any more: its client reads it by now."""
        if sequence.generated:
            sequence.relegated_at = None
        insort(self._lines.setdefault(_key(sequence), []), sequence, key=self._due)
        self._length += 1
        sequence.uncached = round((1.0 - self._share(sequence)) * len(sequence.tokens))
        self._count(sequence, 1)
        if sequence.choice:
            self._branches[_line(sequence)] += 1
        if sequence.deadline is not None and sequence.generated == 0:
            self._deadlines.add(sequence.deadline, sequence, self._length)
        if sequence.objective is not None and sequence.generated == 0 and sequence.relegated_at is None:
            self._objectives.add(sequence.objective, sequence, self._length)

    def remove(self, sequence: Sequence) -> None:
        """Removes a sequence. Raises ValueError if it is not in the queue."""
        line = self._lines[_key(sequence)]
        line.remove(sequence)
        self._length -= 1
        self._count(sequence, -1)
        if sequence.choice:
            self._branches[_line(sequence)] -= 1
            if not self._branches[_line(sequence)]:
                del self._branches[_line(sequence)]
        if not line:
            del self._lines[_key(sequence)]

    def overdue(self, now: float) -> list[Sequence]:
        """Returns the sequences without a first token whose deadline has passed. They stay in the queue: the caller
        removes them."""
        return list(dict.fromkeys(self._deadlines.due(now)))

    def relegate(self, now: float) -> int:
        """Relegates the sequences without a first token whose objective has passed. Returns their number."""
        relegated = 0
        for sequence in self._objectives.due(now):
            if sequence.relegated_at is not None:
                continue
            self._lines[_key(sequence)].remove(sequence)
            if not self._lines[_key(sequence)]:
                del self._lines[_key(sequence)]
            sequence.relegated_at = now
            insort(self._lines.setdefault(_key(sequence), []), sequence, key=self._due)
            relegated += 1
        return relegated

    def candidates(self, now: float) -> Iterator[Sequence]:
        """Yields the sequences in the order in which they should be admitted.

        The caller acts on each one before it asks for the next. If it has admitted the sequence, the tenant's counter
        has changed, and the next of the same list is a candidate. If not, no others of this list follow.
        """
        heaps: dict[_Band, list[Turn]] = {}
        for rank, tenant, relegated in self._lines:
            band = rank, relegated
            heaps.setdefault(band, []).append(self._turn(band, tenant))
        for heap in heaps.values():
            heapify(heap)
        while heads := [self._head(band, heap, now) for band, heap in heaps.items() if heap]:
            _, _, _, band = min(heads)
            tenant = heappop(heaps[band])[2]
            key = band[0], tenant, band[1]
            chosen = self._choose(self._lines[key])
            yield chosen
            if chosen.status is not Status.WAITING and key in self._lines:
                heappush(heaps[band], self._turn(band, tenant))

    def _count(self, sequence: Sequence, sign: int) -> None:
        """Adds the uncached tokens of a sequence to those of its class and its tenant, or takes them away."""
        long = sequence.uncached > self._chunk
        tokens = self.long_tokens if long else self.short_tokens
        tokens[reported_class(sequence.rank)] += sign * sequence.uncached
        self.long_prompts += sign * long
        self._tokens[sequence.tenant] += sign * sequence.uncached
        self._sequences[sequence.tenant] += sign
        if not self._sequences[sequence.tenant]:
            del self._sequences[sequence.tenant], self._tokens[sequence.tenant]

    def _turn(self, band: _Band, tenant: str) -> Turn:
        """Returns the sort key of a tenant within a class."""
        return self._counters.of(tenant), self._lines[band[0], tenant, band[1]][0].arrived, tenant

    def _head(self, band: _Band, heap: list[Turn], now: float) -> tuple[int, float, float, _Band]:
        """Returns the sort key of the next sequence of a class among those of other classes."""
        while (current := self._turn(band, heap[0][2])) > heap[0]:
            heapreplace(heap, current)  # its key in the heap is out of date
        counter, arrived, tenant = heap[0]
        return level(self._lines[band[0], tenant, band[1]][0], now, self._ageing_s), counter, arrived, band

    def _due(self, sequence: Sequence) -> float:
        """Returns the instant at which a sequence is due, by which its list is ordered."""
        instants = (sequence.objective, sequence.deadline)
        return min([sequence.arrived + self._ageing_s, *(each for each in instants if each is not None)])

    def _choose(self, line: list[Sequence]) -> Sequence:
        """Returns the next sequence of a list, with the head start of cached prefixes."""
        latest = self._due(line[0]) + self._bonus_s
        near = list(takewhile(lambda sequence: self._due(sequence) < latest, line[:_WINDOW]))
        if len(near) < 2:
            return line[0]
        return min(near, key=lambda sequence: self._due(sequence) - self._bonus_s * self._share(sequence))

    def _share(self, sequence: Sequence) -> float:
        """Returns the cached share of a sequence, or 0 if looking it up fails."""
        try:
            return self._cached_share(sequence)
        except Exception:  # noqa: BLE001 - admitting the sequence raises it again, which ends the sequence
            return 0.0


def reported_class(rank: int) -> int:
    """Returns the index of a class, by its rank, in reports by class. Surplus is reported as batch."""
    return min(rank, Priority.BATCH) - Priority.INTERACTIVE


def _line(sequence: Sequence) -> Line:
    """Returns the class and the tenant of a sequence."""
    return sequence.priority, sequence.tenant


def _key(sequence: Sequence) -> _Key:
    """Returns the key of the list that a sequence belongs to."""
    return sequence.rank, sequence.tenant, sequence.relegated_at is not None
