"""Virtual token counters: tenants share the engine by weight, whatever they send (VTC, Sheng et al., OSDI 2024).

Each tenant has a counter of the tokens that were computed for it, over its weight; the one with the lowest goes first.
A tenant that comes back from idleness is lifted to the lowest counter of those at work, so that it has saved nothing
up; what it had overdrawn it still owes. Lives as long as the engine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

INPUT_COST, OUTPUT_COST = 1.0, 2.0
"""Of one token, as in the paper: a generated token takes a step of its own, a prompt's tokens share one."""

_REMEMBERED = 1024
"""Idle tenants whose debts are kept. A counter below all those at work is forgotten at once: the lift replaces it."""


class TokenCounters:
    """Counters of tenants. ``weights`` gives shares; a tenant that is not named weighs 1."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._active: dict[str, float] = {}
        self._live: dict[str, int] = {}  # sequences in the engine
        self._idle: OrderedDict[str, float] = OrderedDict()  # longest idle first
        self._last = 0.0  # counter of the tenant that was the last to leave

    def __len__(self) -> int:
        return len(self._active) + len(self._idle)

    def arrive(self, tenant: str) -> None:
        """One more sequence of the tenant is in the engine."""
        if tenant not in self._live:
            floor = min(self._active.values(), default=self._last)
            self._active[tenant] = max(self._idle.pop(tenant, floor), floor)
        self._live[tenant] = self._live.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        """One of the tenant's sequences has ended."""
        self._live[tenant] -= 1
        if self._live[tenant] == 0:
            del self._live[tenant]
            self._last = self._active.pop(tenant)
            if self._last > min(self._active.values(), default=-1.0):
                self._idle[tenant] = self._last
            if len(self._idle) > _REMEMBERED:
                self._idle.popitem(last=False)

    def charge(self, tenant: str, cost: float) -> None:
        """Counts work done for a tenant that is in the engine."""
        self._active[tenant] += cost / self._weights.get(tenant, 1.0)

    def of(self, tenant: str) -> float:
        """The counter of a tenant that is in the engine; lower goes first."""
        return self._active[tenant]
