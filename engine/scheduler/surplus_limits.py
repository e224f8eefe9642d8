"""``SurplusLimits``: how much of a step and of the places tenants with surplus (``GenerationRequest.surplus``) may have
while other tenants send requests too.

Another tenant's request finds a place, and waits for a short step. The steps are not so short that their fixed time
takes most of the prefill rate: a queue that grew for that would be surplus for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from engine.api import Priority
from engine.scheduler.limits import Limits
from engine.scheduler.queue import level
from engine.sequence import Sequence

STEP_TOKENS_DIVISOR = 4
"""Prompts of tenants with surplus get at most the step's tokens divided by this."""

FREE_PLACES_DIVISOR = 8
"""Tenants with surplus leave free the engine's places, ``Limits.sequences``, divided by this."""

SHARED_S = 10.0
"""Seconds after the last sequence of another tenant for which the limits apply."""


class SurplusLimits:
    """The limits of one scheduler. Instants are seconds of its clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._live: Counter[str] = Counter()  # surplus sequences in the engine, by tenant
        self._others_at = float("-inf")  # instant at which a tenant without surplus had a sequence last
        self.apply = False
        """Whether tenants with surplus are limited in the present step."""

    @property
    def tenants(self) -> Collection[str]:
        """The tenants that have surplus in the engine."""
        return self._live.keys()

    @property
    def step_tokens(self) -> int:
        """Most tokens of a step for prompts of tenants with surplus."""
        return max(1, self._limits.batch_tokens // STEP_TOKENS_DIVISOR)

    def arrive(self, sequence: Sequence) -> None:
        """Counts a sequence that is in the engine from now on."""
        if sequence.surplus:
            self._live[sequence.tenant] += 1

    def leave(self, sequence: Sequence) -> None:
        """Counts a sequence that has ended."""
        if not sequence.surplus:
            return
        self._live[sequence.tenant] -= 1
        if not self._live[sequence.tenant]:
            del self._live[sequence.tenant]

    def begin_step(self, tenants: int, now: float) -> None:
        """Decides whether the limits apply in the step that begins. ``tenants`` have sequences in the engine."""
        if tenants > len(self._live):
            self._others_at = now
        self.apply = bool(self._live) and now - self._others_at < SHARED_S

    def limits_waiting(self, sequence: Sequence, now: float) -> bool:
        """Returns whether the tenant of a waiting sequence has surplus, and the sequence has to leave room for other
        tenants. One that has waited for long has not: it has risen by a class, or from surplus to a usual one."""
        return self.apply and self._limits_level(sequence, level(sequence, now, self._limits.ageing_s))

    def limits_running(self, sequence: Sequence) -> bool:
        """Returns as ``limits_waiting`` for a running sequence, whose level is that of its admission."""
        return self.apply and self._limits_level(sequence, sequence.level)

    def has_place(self, sequence: Sequence, running: Collection[Sequence], now: float) -> bool:
        """Returns whether a waiting sequence may be admitted beside ``running``, as far as places go. Surplus ones
        leave a part free, and where others have taken the rest may have as many themselves."""
        if not self.limits_waiting(sequence, now):
            return True
        part = self._limits.sequences // FREE_PLACES_DIVISOR
        free = self._limits.sequences - len(running)
        return free > part or self._count(running) < part

    def _count(self, running: Iterable[Sequence]) -> int:
        return sum(map(self.limits_running, running))

    def _limits_level(self, sequence: Sequence, reached: int) -> bool:
        if sequence.surplus:
            return reached > Priority.BATCH
        return sequence.tenant in self._live and reached >= sequence.rank
