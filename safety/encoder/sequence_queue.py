"""``SequenceQueue``: chooses the sequences of the next batch. Pure.

Tenants that wait get equal shares of the tokens that are computed: the next sequence is one of the tenant that has got
least. A tenant with an urgent call may be LEAD_TOKENS ahead of its share, and no more, so that the call need not wait
for the turns of all others (borrowed virtual time, Duda and Cheriton 1999). Within a tenant ``TenantCalls`` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from safety.encoder.tenant_calls import Owner, QueuedSequence, TenantCalls

LEAD_TOKENS = 256
"""By how many tokens a tenant with an urgent call may be ahead of the others: a prompt of usual length, or a batch."""


class SequenceQueue(Generic[Owner]):
    """The sequences that wait, by tenant and owner. Neither a long text nor many texts of one tenant delay those of
    others, nor its own short and urgent ones. Owners are compared by identity."""

    def __init__(self, max_batch_tokens: int) -> None:
        """``max_batch_tokens``: the most tokens in a batch, each sequence counted as long as the longest, since
        attention needs them padded. A longer sequence is a batch by itself."""
        self._max_batch_tokens = max_batch_tokens
        self._waiting: dict[str, TenantCalls[Owner]] = {}
        self._got: dict[str, int] = {}
        """The tokens that tenants have got, counted as if each that waits had waited from the beginning. A tenant that
        does not wait is kept while it is ahead of those that do, so that a pause gains it nothing."""
        self._joining = 0
        """What a tenant that comes is taken to have got: the least of those that wait, without their leads. So a tenant
        whose calls come one after the other gives a lead once, and not with each call."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def waiting(self, tenant: str) -> int:
        """Returns the number of sequences of a tenant that wait."""
        return len(self._waiting[tenant]) if tenant in self._waiting else 0

    def add(self, owner: Owner, sequences: Sequence[Sequence[int]], tenant: str = "", *, urgent: bool = False) -> None:
        """Adds the sequences of a new owner. ``urgent``: unless they are long, they come before those of owners that
        are not, as far as all get their share."""
        if not sequences:
            return
        if tenant not in self._waiting:
            self._waiting[tenant] = TenantCalls()
            self._got[tenant] = max(self._got.get(tenant, 0), self._joining)
        self._waiting[tenant].add(owner, sequences, urgent=urgent)

    def drop(self, owner: Owner, tenant: str = "") -> None:
        """Removes the sequences of an owner that no longer waits for them."""
        if tenant in self._waiting:
            self._waiting[tenant].drop(owner)
            self._settle(tenant)

    def next_batch(self) -> list[QueuedSequence[Owner]]:
        """Removes the sequences of the next batch from the queue and returns them; [] if no sequence waits."""
        batch: list[QueuedSequence[Owner]] = []
        longest = 0
        while self._waiting:
            tenant = min(self._waiting, key=self._turn)
            longest = max(longest, self._waiting[tenant].next_tokens)
            if batch and longest * (len(batch) + 1) > self._max_batch_tokens:
                break
            sequence = self._waiting[tenant].take()
            batch.append(sequence)
            self._got[tenant] += len(sequence.tokens)
            self._settle(tenant)
        return batch

    def _turn(self, tenant: str) -> int:
        """Returns what sorts the tenants: the smallest is next, and of equal ones that which waits longest."""
        return self._got[tenant] - (LEAD_TOKENS if self._waiting[tenant].urgent else 0)

    def _settle(self, tenant: str) -> None:
        """Notes that ``tenant`` has fewer sequences that wait, and forgets tenants that are not ahead of any other."""
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        if not self._waiting:
            self._got.clear()
            self._joining = 0
            return
        self._joining = max(self._joining, min(map(self._turn, self._waiting)))
        for each in [each for each, got in self._got.items() if each not in self._waiting and got <= self._joining]:
            del self._got[each]
