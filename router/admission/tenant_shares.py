"""``TenantShares``: which requests of a tier are surplus, because their tenant asks for several times its share.

Classes alone protect no tenant: the interactive requests of one that floods a tier go before the standard requests of
all others. So what such a tenant asks for beyond its share comes after everything else (``rank_of``), as long as there
is a tenant that asks for less than its own. A tenant's share is an equal part of what the tier takes. Batch work
leaves it to the tenant's other requests. Lives as long as the router.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.api import Priority

HALF_LIFE_S = 10.0
"""Seconds after which what was asked for counts half."""
ACTIVE_S = 60.0
"""Seconds without a request after which a tenant has no share."""
FLOOD = 2.0
"""How many times its share a tenant asks for, at least, before any of its requests is surplus."""
DISCOUNT_S = 0.25
"""Seconds between two times at which what was recorded is discounted, since that takes time for each tenant."""
REFUSED = 0.05
"""The part of what a tenant asks for that is refused, from which on the tier has too little for it."""
CROWD = 8
"""Waiting requests of a tenant from which on it is in the way of others, even if none of its requests was refused."""


@dataclass(slots=True)
class Demand:
    """The demand of one tenant, in tokens that count less the longer ago they were asked for. ``within`` are those
    that were admitted and are no surplus. ``at`` is the instant of its last request."""

    at: float
    asked: float = 0.0
    refused: float = 0.0
    within: float = 0.0
    batch_within: float = 0.0  # the part of batch work in that


class TenantShares:
    """The demand of the tenants of one tier, as this router sees it. Instants are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._tenants: dict[str, Demand] = {}
        self._taken = 0.0  # tokens of all admitted requests
        self._most = 0.0  # that a tenant has asked for
        self._at = 0.0  # instant up to which everything has been discounted

    def asked(self, tenant: str, tokens: int, now: float) -> None:
        """Records a request of ``tokens`` tokens, before the decision on it."""
        self._discount(now)
        demand = self._tenants.setdefault(tenant, Demand(now))
        demand.at = now
        demand.asked += tokens
        self._most = max(self._most, demand.asked)

    def decided(self, tenant: str, priority: Priority, tokens: int, *, admitted: bool, surplus: bool) -> None:
        """Records the decision on the request that ``asked`` has recorded last."""
        demand = self._tenants.setdefault(tenant, Demand(self._at))  # it may be forgotten while the cache is read
        if not admitted:
            demand.refused += tokens
            return
        self._taken += tokens
        if not surplus:
            demand.within += tokens
            demand.batch_within += tokens * (priority is Priority.BATCH)

    def surplus(self, tenant: str, priority: Priority, waiting: int) -> bool:
        """Returns whether a request of ``tenant`` is surplus: it floods, and has had its share, of which what it has
        had for batch work counts only for more of it. ``waiting`` of its requests wait for their first token."""
        own = self._tenants.get(tenant)
        if own is None:
            return False
        had = own.within - own.batch_within * (priority is not Priority.BATCH)
        return had >= self._share and self.floods(tenant, waiting)

    def floods(self, tenant: str, waiting: int) -> bool:
        """Returns whether a tenant asks for several times its share, while another one asks for less than its own.
        ``waiting`` of its requests wait for their first token."""
        own = self._tenants.get(tenant)
        if (
            own is None
            or own.asked < FLOOD * self._share
            or not (own.refused > REFUSED * own.asked or waiting >= CROWD)
        ):
            return False
        return any(other.asked <= self._share for other in self._tenants.values() if other is not own)

    def beside_flood(self, tenant: str) -> bool:
        """Returns whether a tenant asks for no more than its share, and another one for several times its own."""
        own, share = self._tenants.get(tenant), self._share
        return own is not None and own.asked <= share and self._most >= FLOOD * share

    @property
    def _share(self) -> float:
        return self._taken / max(len(self._tenants), 1)

    def _discount(self, now: float) -> None:
        """Lets what was recorded count less, and forgets tenants that are not active."""
        if now - self._at < DISCOUNT_S:
            return
        factor: float = 0.5 ** (max(0.0, now - self._at) / HALF_LIFE_S)
        self._at = now
        self._taken *= factor
        for name, demand in list(self._tenants.items()):
            if now - demand.at > ACTIVE_S:
                del self._tenants[name]
                continue
            demand.asked *= factor
            demand.refused *= factor
            demand.within *= factor
            demand.batch_within *= factor
        self._most = max((demand.asked for demand in self._tenants.values()), default=0.0)
