"""``SequenceQueue``: chooses the sequences of the next batch. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
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
    """The sequences that wait, by tenant and owner. Tenants take turns, one sequence each, and so do the owners of a
    tenant. So neither a long text nor many texts delay the short ones of others. Owners are compared by identity."""

    def __init__(self, max_batch_tokens: int) -> None:
        """``max_batch_tokens``: the most tokens in a batch, each sequence counted as long as the longest, since
        attention needs them padded. A longer sequence is a batch by itself."""
        self._max_batch_tokens = max_batch_tokens
        self._waiting: OrderedDict[str, deque[_Waiting[Owner]]] = OrderedDict()  # the tenant whose turn it is first

    def __len__(self) -> int:
        return sum(map(self.waiting, self._waiting))

    def waiting(self, tenant: str) -> int:
        """Returns the number of sequences of a tenant that wait."""
        return sum(len(each.sequences) for each in self._waiting.get(tenant, ()))

    def add(self, owner: Owner, sequences: Sequence[Sequence[int]], tenant: str = "") -> None:
        """Adds the sequences of a new owner, after those of all others of the tenant."""
        queued = deque(QueuedSequence(owner, place, tokens) for place, tokens in enumerate(sequences))
        if queued:
            self._waiting.setdefault(tenant, deque()).append(_Waiting(owner, queued))

    def drop(self, owner: Owner, tenant: str = "") -> None:
        """Removes the sequences of an owner that no longer waits for them."""
        if kept := deque(each for each in self._waiting.get(tenant, ()) if each.owner is not owner):
            self._waiting[tenant] = kept
        else:
            self._waiting.pop(tenant, None)

    def next_batch(self) -> list[QueuedSequence[Owner]]:
        """Removes the sequences of the next batch from the queue and returns them; [] if no sequence waits."""
        batch: list[QueuedSequence[Owner]] = []
        longest = 0
        while self._waiting:
            tenant, owners = next(iter(self._waiting.items()))
            longest = max(longest, len(owners[0].sequences[0].tokens))
            if batch and longest * (len(batch) + 1) > self._max_batch_tokens:
                break
            batch.append(owners[0].sequences.popleft())
            owners.rotate(-1)
            if not owners[-1].sequences:
                owners.pop()
            self._waiting.move_to_end(tenant)
            if not owners:
                del self._waiting[tenant]
        return batch
