"""``TenantCalls``: the calls of one tenant that wait, and whose sequence is next. Pure."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")

OLDEST_TURN = 4
"""Each such turn of a tenant goes to the call that was not served for longest, whatever it is, so that none waits for
ever. The others go to the shortest call."""

LATER_BY = 4
"""The sequences by which a call that is not urgent counts as longer: it comes after urgent calls of usual length, and
before long ones, which wait for seconds anyway."""

MAX_VOID = 64
"""Entries of calls that have left which the ranking may have beside as many as calls that wait."""


class QueuedSequence(NamedTuple, Generic[Owner]):
    """A sequence of token ids. ``place`` is its index among the sequences of ``owner``."""

    owner: Owner
    place: int
    tokens: Sequence[int]


@dataclass(slots=True)
class _Waiting(Generic[Owner]):
    """A call. ``number`` counts the calls of the tenant."""

    number: int
    urgent: bool
    sequences: deque[QueuedSequence[Owner]]

    @property
    def length(self) -> int:
        """What sorts the calls: the shortest is next, and of equal ones the first."""
        return len(self.sequences) + (0 if self.urgent else LATER_BY)


class TenantCalls(Generic[Owner]):
    """The calls of a tenant, each with at least one sequence. Owners are compared by identity."""

    def __init__(self) -> None:
        self._calls: OrderedDict[int, _Waiting[Owner]] = OrderedDict()
        """By the id of the owner, those that were not served for longest first."""
        self._ranked: list[tuple[int, int, int]] = []
        """A heap of (length, number, id of the owner), where the length is ``_Waiting.length``. An entry whose call has
        left, or has another length by now, is void."""
        self._numbers = count()
        self._turns = 0
        self._sequences = 0
        self._urgent = 0

    def __len__(self) -> int:
        """Returns the number of sequences that wait."""
        return self._sequences

    @property
    def urgent(self) -> bool:
        """Whether an urgent call waits."""
        return self._urgent > 0

    @property
    def next_tokens(self) -> int:
        """The number of tokens of the sequence that ``take`` returns."""
        return len(self._calls[self._next()].sequences[0].tokens)

    def add(self, owner: Owner, sequences: Sequence[Sequence[int]], *, urgent: bool) -> None:
        """Adds a call, which has at least one sequence."""
        queued = deque(QueuedSequence(owner, place, tokens) for place, tokens in enumerate(sequences))
        call = _Waiting(next(self._numbers), urgent, queued)
        self._calls[id(owner)] = call
        self._sequences += len(queued)
        self._urgent += urgent
        self._rank(id(owner), call)

    def drop(self, owner: Owner) -> None:
        """Removes what waits of a call."""
        if (call := self._calls.pop(id(owner), None)) is not None:
            self._sequences -= len(call.sequences)
            self._urgent -= call.urgent

    def take(self) -> QueuedSequence[Owner]:
        """Removes the next sequence and returns it. There must be one."""
        key = self._next()
        call = self._calls[key]
        sequence = call.sequences.popleft()
        self._turns += 1
        self._sequences -= 1
        if call.sequences:
            self._calls.move_to_end(key)
            self._rank(key, call)
        else:
            del self._calls[key]
            self._urgent -= call.urgent
        return sequence

    def _next(self) -> int:
        """Returns the id of the owner whose turn it is."""
        if (self._turns + 1) % OLDEST_TURN == 0:
            return next(iter(self._calls))
        while True:
            length, number, key = self._ranked[0]
            call = self._calls.get(key)
            if call is not None and (call.number, call.length) == (number, length):
                return key
            heapq.heappop(self._ranked)

    def _rank(self, key: int, call: _Waiting[Owner]) -> None:
        heapq.heappush(self._ranked, (call.length, call.number, key))
        if len(self._ranked) > 2 * len(self._calls) + MAX_VOID:
            self._ranked = [(each.length, each.number, key) for key, each in self._calls.items()]
            heapq.heapify(self._ranked)
