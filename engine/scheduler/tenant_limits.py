"""``TenantLimits``: how much of a step and of the places tenants may have that crowd the engine, or have surplus
(``GenerationRequest.surplus``), while other tenants send requests too.

Another tenant's request finds a place, and waits for a short step. The steps are not so short that their fixed time
takes most of the prefill rate: a queue that grew for that would be surplus for ever.

A tenant crowds the engine while CROWD of its prompts wait, or several that fill half a step. That is seen in the step
in which it is so, and needs no knowledge of its demand, by which the router finds surplus some time later. Its
sequences of a class are limited only while others are about in that class or a higher one. One that is alone is not
limited. Nor is one that has had less than others whose prompts are there, since it takes nothing from them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator

from engine.api import Priority
from engine.scheduler.fairness import TokenCounters
from engine.scheduler.limits import Limits
from engine.scheduler.queue import WaitingQueue, level
from engine.sequence import Sequence

STEP_TOKENS_DIVISOR = 4
"""Prompts of a tenant that is limited get at most the step's tokens divided by this."""

FREE_PLACES_DIVISOR = 8
"""Tenants that are limited leave free the engine's places, ``Limits.sequences``, divided by this."""

CROWD = 8
"""Waiting prompts of a tenant from which on it crowds the engine, however short they are."""

CROWD_DIVISOR = 2
"""Several waiting prompts with more tokens than a step divided by this crowd the engine."""

SHARED_S = 10.0
"""Seconds after the last sequence of another tenant for which the limits apply."""

BEHIND_ALL = 2 * len(Priority)
"""The standing of tenants with surplus: their prompts are behind those of others in all classes."""


class Presence:
    """The tenants that have sequences of one class in the engine, or had some in the last SHARED_S seconds."""

    def __init__(self) -> None:
        self._live: Counter[str] = Counter()  # sequences by tenant
        self._left: OrderedDict[str, float] = OrderedDict()  # instants at which others had their last; earliest first

    def __len__(self) -> int:
        """Returns the number of these tenants."""
        return len(self._live) + len(self._left)

    def arrive(self, tenant: str) -> None:
        """Counts a sequence that is in the engine from now on."""
        self._live[tenant] += 1
        self._left.pop(tenant, None)

    def leave(self, tenant: str, now: float) -> None:
        """Counts a sequence that has ended at the instant ``now``."""
        self._live[tenant] -= 1
        if not self._live[tenant]:
            del self._live[tenant]
            self._left[tenant] = now
        self._forget(now)

    def has_others(self, tenants: Collection[str], now: float) -> bool:
        """Returns whether there is a tenant that is not one of ``tenants``."""
        self._forget(now)
        if self._left and any(each not in tenants for each in self._left):
            return True
        return len(self._live) > sum(each in self._live for each in tenants)

    def _forget(self, now: float) -> None:
        while self._left and now - next(iter(self._left.values())) >= SHARED_S:
            self._left.popitem(last=False)


class TenantLimits:
    """The limits of one scheduler. ``counters`` has the tenants' weights. The KV cache has ``kv_tokens``. Instants are
    seconds of its clock."""

    def __init__(self, limits: Limits, counters: TokenCounters, kv_tokens: int) -> None:
        self._limits = limits
        self._kv_tokens = kv_tokens
        self._counters = counters
        self._surplus: Counter[str] = Counter()  # surplus sequences in the engine, by tenant
        self._others_at = float("-inf")  # instant at which a tenant without surplus had a sequence last
        self._surplus_applies = False
        self._classes = {priority: Presence() for priority in Priority}  # without surplus
        self._nobody: frozenset[str] = frozenset()
        self._crowds = self._nobody  # tenants that crowd the engine in the present step
        self._from = BEHIND_ALL  # the highest class in which these are limited
        self._now = float("-inf")  # instant of the present step
        self._front: tuple[int, float] | None = None  # of the waiting sequences of tenants that are not limited

    @property
    def apply(self) -> bool:
        """Whether a tenant is limited in the present step."""
        return self._surplus_applies or bool(self._crowds)

    @property
    def tenants(self) -> Collection[str]:
        """The tenants that have surplus in the engine or crowd it, if the limits apply."""
        return self._surplus.keys() | self._crowds if self._surplus_applies else self._crowds

    @property
    def step_tokens(self) -> int:
        """Most tokens of a step for prompts of tenants that are limited, all together: the part of one for those with
        surplus, and a part for each other one."""
        parts = len(self._crowds - self._surplus.keys() if self._surplus_applies else self._crowds)
        return min(self._limits.batch_tokens, max(1, parts) * self._part)

    @property
    def _part(self) -> int:
        return max(1, self._limits.batch_tokens // STEP_TOKENS_DIVISOR)

    @property
    def others_wait(self) -> int | None:
        """The highest rank of the waiting sequences for which limited ones leave room; None if no tenant is limited, or
        none waits."""
        return None if self._front is None else self._front[0]

    def others_rank(self, prompts: Iterable[Sequence]) -> int | None:
        """Returns the highest rank of the prompts for which limited ones leave room, waiting or among ``prompts``,
        those in prefill; None without any."""
        if not self.apply:
            return None
        ranks = [one.rank for one in prompts if self.standing(one) is None]
        waiting = self.others_wait
        return min(ranks if waiting is None else [*ranks, waiting], default=None)

    def candidates(self, waiting: WaitingQueue, now: float) -> Iterator[Sequence]:
        """Yields the waiting sequences as ``WaitingQueue.candidates`` does, and those that have to leave room for
        others after these."""
        if self.others_wait is None:
            yield from waiting.candidates(now)
            return
        for behind in (False, True):
            for one in waiting.candidates(now):
                if self.steps_back(one, now) is behind:
                    yield one

    def arrive(self, sequence: Sequence) -> None:
        """Counts a sequence that is in the engine from now on."""
        if sequence.surplus:
            self._surplus[sequence.tenant] += 1
        else:
            self._classes[sequence.priority].arrive(sequence.tenant)

    def leave(self, sequence: Sequence) -> None:
        """Counts a sequence that has ended."""
        if not sequence.surplus:
            self._classes[sequence.priority].leave(sequence.tenant, self._now)
            return
        self._surplus[sequence.tenant] -= 1
        if not self._surplus[sequence.tenant]:
            del self._surplus[sequence.tenant]

    def begin_step(self, waiting: WaitingQueue, prefilling: Collection[str], now: float) -> None:
        """Decides which limits apply in the step that begins. ``prefilling`` are the tenants with prompts in
        prefill."""
        self._now = now
        if self._counters.active > len(self._surplus):
            self._others_at = now
        self._surplus_applies = bool(self._surplus) and now - self._others_at < SHARED_S
        self._crowds, self._from = self._nobody, BEHIND_ALL
        if waiting and (crowds := waiting.tenants_with_more(self._limits.batch_tokens // CROWD_DIVISOR, CROWD)):
            shared = (each for each in Priority if self._classes[each].has_others(crowds, now))
            self._from = next(shared, BEHIND_ALL)
            shared_step = self._from != BEHIND_ALL
            self._crowds = self._not_outrun(crowds, {*waiting.tenants, *prefilling}) if shared_step else self._nobody
        self._front = waiting.front(self.tenants) if self.apply else None

    def standing_waiting(self, sequence: Sequence, now: float) -> int | None:
        """Returns the rank of a waiting sequence that is limited: it has to leave room for other tenants' sequences of
        that rank or a higher one. None: it is not limited. One that has waited for long is not: it has risen by a
        class, or from surplus to a usual one."""
        return self._standing(sequence, level(sequence, now, self._limits.ageing_s)) if self.apply else None

    def steps_back(self, sequence: Sequence, now: float) -> bool:
        """Returns whether a waiting sequence comes after those of other tenants for which it has to leave room. Not if
        its tenant has had less than each of these."""
        if self._front is None or self.standing_waiting(sequence, now) is None:
            return False
        rank, counter = self._front
        return sequence.rank >= rank and self._counters.of(sequence.tenant) >= counter

    def standing(self, sequence: Sequence) -> int | None:
        """Returns as ``standing_waiting`` for a running sequence, whose level is that of its admission."""
        return self._standing(sequence, sequence.level) if self.apply else None

    def has_place(self, sequence: Sequence, running: Collection[Sequence], now: float) -> bool:
        """Returns whether a waiting sequence may be admitted beside ``running``, as far as places go. Limited ones
        leave a part free. Where others have taken the rest, tenants with surplus may have as many themselves, and one
        that crowds the engine may have its share of the places."""
        standing = self.standing_waiting(sequence, now)
        if standing is None:
            return True
        part = self._limits.sequences // FREE_PLACES_DIVISOR
        if self._limits.sequences - len(running) > part:
            return True
        if standing == BEHIND_ALL:
            return sum(self.standing(one) == BEHIND_ALL for one in running) < part
        return sum(one.tenant == sequence.tenant for one in running) < self._places(sequence.tenant)

    def beyond_share(self, candidate: Sequence, running: Iterable[Sequence], now: float) -> Counter[str]:
        """Returns how many places tenants that are limited have to give back to the waiting ``candidate`` if it needs
        them or their KV blocks, by tenant: those beyond their share, and all but one if they have more than their share
        of the KV cache. Empty if its own tenant is limited, or would have more than its share."""
        if not self.apply or self.standing_waiting(candidate, now) is not None:
            return Counter()
        limited, rows, tokens = self.tenants, Counter[str](), Counter[str]()
        for one in running:
            tokens[one.tenant] += len(one.tokens)
            rows[one.tenant] += one.tenant not in limited or self.standing(one) is not None
        own = candidate.tenant
        if rows[own] >= self._places(own) or tokens[own] + len(candidate.tokens) > self._kv_share(own):
            return Counter()
        return +Counter(
            {each: rows[each] - (1 if tokens[each] > self._kv_share(each) else self._places(each)) for each in limited}
        )

    def _not_outrun(self, crowds: Collection[str], asking: set[str]) -> frozenset[str]:
        """Returns those of ``crowds`` that have had no less than others of the tenants ``asking`` for prompt tokens, up
        to a step's tokens. Those that have had less wait for their turn as usual: prompts that come one by one without
        an end would leave them nothing."""
        most = max((self._counters.of(each) for each in asking.difference(crowds)), default=float("-inf"))
        return frozenset(each for each in crowds if self._counters.of(each) + self._limits.batch_tokens >= most)

    def _kv_share(self, tenant: str) -> float:
        """Returns the share of a tenant in the KV cache, in tokens."""
        return self._kv_tokens * self._counters.share(tenant)

    def _places(self, tenant: str) -> int:
        """Returns the share of a tenant in the engine's places. At least as many as others leave free."""
        share = int(self._limits.sequences * self._counters.share(tenant))
        return max(1, share, self._limits.sequences // FREE_PLACES_DIVISOR)

    def _standing(self, sequence: Sequence, reached: int) -> int | None:
        aged = reached <= Priority.BATCH if sequence.surplus else reached < sequence.rank
        if aged:
            return None
        if self._surplus_applies and sequence.tenant in self._surplus:
            return BEHIND_ALL
        return sequence.rank if sequence.tenant in self._crowds and sequence.rank >= self._from else None
