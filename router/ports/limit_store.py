"""``LimitStore``: the port to the limits that all routers share, with its types.

Before a request runs, its router reserves the usage that few such requests exceed. While the request runs, the router
renews the lease of the reservation. At the end it settles the reservation to the actual use. A reservation whose lease
has run out is settled by the store itself, to the use that was reported last.

All amounts are integers, so that every implementation computes the same: tokens, and money in units of 1e-9 of the
currency. Times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MONEY_UNITS = 1_000_000_000
"""Units of money in 1 of the currency, such as 1 dollar. A price of 0.15 per million tokens is 150 units per token."""


class LimitName(StrEnum):
    """The limits that a scope may have. The values are the names of the settings, and of fields in the API."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    CONCURRENT_REQUESTS = "concurrent_requests"
    TOKENS_PER_DAY = "tokens_per_day"
    MONEY_PER_MONTH = "money_per_month"


@dataclass(frozen=True, slots=True)
class Scope:
    """The limits of one owner: a tenant or an API key. ``name`` is unique within the tenant, such as ``tenant`` or
    ``key:ID``.

    ``limits`` are pairs of a limit's name and its value, positive, in the order of ``LimitName``. Money is in units of
    1e-9 of the currency. Usage without a limit is not counted.
    """

    name: str
    limits: tuple[tuple[LimitName, int], ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """The usage of one request: tokens of input and output together, and money in units of 1e-9 of the currency. The
    request itself also counts as 1."""

    tokens: int = 0
    money: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """A request for room in all of ``scopes``, which belong to ``tenant``. ``id`` is unique. ``charge`` is the expected
    usage, which few such requests exceed."""

    id: str
    tenant: str
    scopes: tuple[Scope, ...]
    charge: Charge


@dataclass(frozen=True, slots=True)
class LimitUse:
    """The state of one limit of one scope. ``used`` includes the request that was decided on, if it was admitted.

    ``reset_ms`` is the time until ``used`` is 0 again, if no request follows. ``wait_ms`` is the time until the request
    that was decided on has room; 0 if it has room now; None if it never will, since it needs more than the whole limit.
    """

    scope: str
    name: LimitName
    limit: int
    used: int
    reset_ms: int
    wait_ms: int | None = 0

    @property
    def remaining(self) -> int:
        """The part of the limit that is not used. It is never negative, although a request may use more than it
        reserved."""
        return max(0, self.limit - self.used)

    @property
    def owner(self) -> str:
        """The owner of the limit: ``key`` or ``tenant``."""
        return self.scope.partition(":")[0]


@dataclass(frozen=True, slots=True)
class LimitDecision:
    """The decision whether a request has room within all limits, and the state of each limit, in the order of scopes
    and limits."""

    uses: tuple[LimitUse, ...]

    @property
    def refused(self) -> tuple[LimitUse, ...]:
        """The limits without room for the request. If there are none, the request is admitted and its charge is
        reserved."""
        return tuple(use for use in self.uses if use.wait_ms != 0)

    @property
    def admitted(self) -> bool:
        """Whether the request may run."""
        return not self.refused

    def near(self, warn_at: float) -> tuple[LimitUse, ...]:
        """Returns the limits that are used by the share ``warn_at``, 0 to 1, or more."""
        return tuple(use for use in self.uses if use.used >= warn_at * use.limit)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A running request, and its usage so far."""

    id: str
    tenant: str
    used: Charge


class LimitStore(Protocol):
    """The limits of all scopes. Each method raises StateUnavailableError if the store cannot be reached in time."""

    async def reserve(self, reservation: Reservation, lease_ms: int) -> LimitDecision:
        """Reserves the charge in all scopes if each has room for it, else in none, and returns the decision. One round
        trip, atomic.

        The reservation is held for ``lease_ms``, unless it is renewed. With the id of one that is held, the charge
        takes the place of its charge, and the request is not counted again; if there is no room for what it grows by,
        the reservation stays as it was.
        """
        ...

    async def renew(self, renewals: Sequence[Renewal], lease_ms: int) -> None:
        """Extends the leases to ``lease_ms`` from now, and stores the usage so far. Unknown ids are ignored.

        A reservation whose lease has run out is held again.
        """
        ...

    async def settle(self, tenant: str, reservation_id: str, used: Charge) -> bool:
        """Replaces the reserved charge by ``used``, and ends the reservation. Returns whether it was open.

        A second call has no effect. A reservation whose lease has run out can still be settled.
        """
        ...

    async def count(self, reservation: Reservation) -> None:
        """Counts the charge of ``reservation``, which is what its request has used, whatever room there is. It is for
        requests that ran though the store could not be asked. If the store has the reservation, settles it.

        A second call has no effect for an hour.
        """
        ...

    async def limit_uses(self, tenant: str, scopes: Sequence[Scope]) -> Sequence[LimitUse]:
        """Returns the state of the limits of ``scopes``, in their order."""
        ...

    async def open_reservations(self, tenant: str) -> int:
        """Returns the number of the tenant's reservations whose lease has not run out."""
        ...
