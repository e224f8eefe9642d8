"""Fair scheduling of tenants by virtual token counters (VTC; Sheng et al., OSDI 2024).

Each tenant has a counter of the tokens computed for it, divided by its weight. The tenant with the lowest counter is
scheduled first. A tenant that returns from idleness is raised to the lowest counter of the active tenants, so that
idleness saves nothing up; if its own counter is higher, it keeps that. Counters live as long as the engine.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping

from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence

INPUT_COST, OUTPUT_COST = 1.0, 2.0
"""Cost of an input and of an output token, as in the paper. An output token takes a step of its own, while the tokens
of a prompt share one."""

_REMEMBERED = 1024
"""Most idle tenants whose counters are kept. A counter below those of all active tenants is not kept, because the
tenant would be raised anyway."""


class TokenCounters:
    """Counts, for each tenant, the tokens that were computed for it, divided by its weight. ``weights`` gives their
    weights, by name; a tenant without one has weight 1."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._active: dict[str, float] = {}
        self._live: dict[str, int] = {}  # sequences in the engine, by tenant
        self._weight = 0.0  # of the active tenants, all together
        self._idle: OrderedDict[str, float] = OrderedDict()  # longest idle first
        self._last = 0.0  # counter of the tenant that became idle last

    def __len__(self) -> int:
        """Returns the number of tenants that have a counter."""
        return len(self._active) + len(self._idle)

    @property
    def active(self) -> int:
        """The number of tenants with a sequence in the engine."""
        return len(self._active)

    def arrive(self, tenant: str) -> None:
        """Records that one more sequence of ``tenant`` is in the engine, waiting or running."""
        if tenant not in self._live:
            floor = min(self._active.values(), default=self._last)
            self._active[tenant] = max(self._idle.pop(tenant, floor), floor)
            self._weight += self._weights.get(tenant, 1.0)
        self._live[tenant] = self._live.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        """Records that one sequence of ``tenant`` has ended."""
        self._live[tenant] -= 1
        if self._live[tenant] == 0:
            del self._live[tenant]
            self._last = self._active.pop(tenant)
            # Zero is exact, so that what sums of fractions leave over does not add up.
            self._weight = self._weight - self._weights.get(tenant, 1.0) if self._active else 0.0
            if self._last > min(self._active.values(), default=-1.0):
                self._idle[tenant] = self._last
            if len(self._idle) > _REMEMBERED:
                self._idle.popitem(last=False)

    def charge(self, tenant: str, cost: float) -> None:
        """Adds ``cost`` tokens, divided by its weight, to the counter of ``tenant``, which must have a sequence in the
        engine."""
        self._active[tenant] += cost / self._weights.get(tenant, 1.0)

    def charge_generated(self, decodes: Iterable[Chunk], prompts: Iterable[Chunk]) -> None:
        """Charges the tokens that a step of these chunks generates to the counters of their tenants."""
        tokens: defaultdict[str, int] = defaultdict(int)
        for chunk in decodes:
            if chunk.samples:
                tokens[chunk.sequence.tenant] += chunk.length - chunk.draft
        for chunk in prompts:
            if chunk.samples:
                tokens[chunk.sequence.tenant] += 1 + chunk.sequence.branches
        for tenant, count in tokens.items():
            self.charge(tenant, OUTPUT_COST * count)

    def is_ahead(self, sequence: Sequence, passed: Iterable[Sequence], tokens: int) -> bool:
        """Returns whether the counter of a sequence's tenant is more than ``tokens`` above that of a tenant whose
        sequence it would pass. Prevents small requests from passing large ones, which do not fit, again and again."""
        own = self.of(sequence.tenant)
        return any(own > self.of(other.tenant) + tokens for other in passed)

    def share(self, tenant: str) -> float:
        """Returns the share of ``tenant`` in the engine by its weight, 0 to 1, among the tenants with a sequence there.
        One that is alone has what it would have beside a tenant of weight 1."""
        own = self._weights.get(tenant, 1.0)
        active = tenant in self._active
        others = self._weight - own * active if len(self._active) > active else 1.0
        return own / (own + others)

    def of(self, tenant: str) -> float:
        """Returns the counter of ``tenant``, which must have a sequence in the engine. A lower one is scheduled
        earlier."""
        return self._active[tenant]
