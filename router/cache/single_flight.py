"""``SingleFlight``: identical requests under way share one generation, within this router and with other routers.

Within a router they wait for its leader's answer. Across routers the store has a lease for each key: the router that
has it leads, and renews it while it generates. A router that dies lets it run out, and one of the others takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from router.bounded_gather import bounded_gather
from router.cache.flight_states import ASKED, Assignment, Flight, FlightEvent, FlightRole, FlightState
from router.ports.answer_cache import EntryStore, Lease
from router.ports.cache_entry import CacheEntry, PoisonedEntryError
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

MIN_POLL_S, MAX_POLL_S = 0.02, 0.25  # between questions to the store; each is half as long again as the one before
MAX_RENEWALS_AT_ONCE = 8
UNSHARED_MS = 1000  # for which requests of other routers go alone; longer than MAX_POLL_S

Place = tuple[str, str]
"""A tenant and a key."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a request is to do. ``entry`` is the answer to share; None for other roles. ``waited``: the answer was being
    generated when the request came. ``reason`` says why a request goes alone; "" otherwise. ``epoch`` is the tenant's
    epoch in the store when a leader begins."""

    role: FlightRole
    entry: CacheEntry | None = None
    waited: bool = False
    reason: str = ""
    epoch: int | None = None


@dataclass(slots=True)
class _Group:
    """A flight, what its requests wait for, and the answer."""

    flight: Flight = field(default_factory=Flight)
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)  # the name under which it has the lease
    roles: dict[int, asyncio.Future[Joined]] = field(default_factory=dict)
    entry: CacheEntry | None = None
    epoch: int | None = None  # in which the lease was granted
    asking: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # one that waits has left, or the flight has ended


def _nothing() -> None:
    """Poisoned entries are not counted."""


class SingleFlight:
    """The flights of one router. ``lease_s`` is the length of a lease, ``max_wait_s`` the longest that a request waits
    for another's answer; both in seconds. ``on_poisoned`` is called for each poisoned entry that was removed."""

    def __init__(
        self, store: EntryStore, lease_s: float, max_wait_s: float, on_poisoned: Callable[[], None] = _nothing
    ) -> None:
        self._store = store
        self._on_poisoned = on_poisoned
        self._lease_s = lease_s
        self._max_wait_s = max_wait_s
        self._groups: dict[Place, _Group] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def owner(self, tenant: str, key: str) -> str:
        """Returns the name under which this router holds the lease on ``key``; "" if it has no flight for it."""
        group = self._groups.get((tenant, key))
        return "" if group is None else group.owner

    async def unwanted(self, tenant: str, key: str) -> None:
        """Waits until no request of this router, and none of another one, waits for the answer of the leading request
        with the cache key ``key``. Returns at once if there is none."""
        while (group := self._groups.get((tenant, key))) is not None:
            if group.flight.waiting:
                group.changed.clear()
                await group.changed.wait()
            elif await self._awaited_elsewhere(tenant, key, group.owner):
                await asyncio.sleep(MAX_POLL_S)
            elif not group.flight.waiting:  # none has come meanwhile
                return

    async def _awaited_elsewhere(self, tenant: str, key: str, owner: str) -> bool:
        """Returns whether requests of other routers wait. They do not if the store cannot be reached: without it they
        would never get the answer."""
        try:
            return await self._store.awaited(tenant, key, owner)
        except StateUnavailableError:
            return False

    async def close(self) -> None:
        """Stops the background tasks and releases all leases of this router, so that other routers need not wait for
        them to expire."""
        tasks = [group.asking for group in self._groups.values() if group.asking is not None]
        tasks += [self._renewing] if self._renewing is not None else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for place, group in self._leading():
            self._release(place, group.owner)
        if self._ending:
            await asyncio.wait(set(self._ending))

    async def join(self, tenant: str, key: str, max_wait_s: float | None = None) -> Joined:
        """Waits until the request has a role, and returns it. Waits at most ``max_wait_s`` seconds, or the setting's if
        that is less; then the role is ALONE.

        A caller with the role LEAD must call ``answered``, ``unshared`` or ``failed`` once. The cancellation of one
        caller does not affect the others.
        """
        limit_s = self._max_wait_s if max_wait_s is None else min(max_wait_s, self._max_wait_s)
        place = tenant, key
        group = self._groups.get(place)
        if group is not None and group.entry is not None:
            return Joined(FlightRole.SHARE, group.entry, waited=True)  # answered, and about to be stored
        if group is None:
            group = self._groups[place] = _Group()
            group.asking = asyncio.create_task(self._ask(place, group))
        waited = group.flight.state is not FlightState.ASKING
        member = group.flight.join()
        mine: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()
        group.roles[member] = mine
        try:
            await asyncio.wait((mine,), timeout=limit_s)
        except asyncio.CancelledError:
            if mine.done() and mine.result().role is FlightRole.LEAD:
                self.failed(tenant, key)  # it was to lead and is cancelled in one breath: the next one leads
            raise
        finally:
            del group.roles[member]
            if not mine.done():
                self._leave(place, group, member)
        if not mine.done():
            return Joined(FlightRole.ALONE, reason="wait")
        joined = mine.result()
        return replace(joined, waited=waited or joined.waited)

    def answered(self, tenant: str, key: str, entry: CacheEntry) -> None:
        """Gives the leader's answer ``entry`` to all requests that wait. Requests that come before ``forget`` get it
        too."""
        group = self._groups[tenant, key]
        group.entry = entry
        self._assign(group, group.flight.answered(), "")

    def forget(self, tenant: str, key: str, release_ms: int | None = None) -> None:
        """Ends a flight after ``answered``. Requests that come later ask the store again.

        ``release_ms`` None: storing the answer has ended the lease. Otherwise the lease ends now, and for that many
        milliseconds requests go alone, as in ``EntryStore.release``.
        """
        group = self._groups.pop((tenant, key), None)
        if group is not None and release_ms is not None:
            self._release((tenant, key), group.owner, release_ms)

    def unshared(self, tenant: str, key: str, reason: str) -> None:
        """Ends a flight whose answer may not be stored, because of ``reason``. The requests that wait go alone, in
        other routers too."""
        group = self._groups.pop((tenant, key))
        self._assign(group, group.flight.unshared(), reason)
        self._release((tenant, key), group.owner, UNSHARED_MS)

    def failed(self, tenant: str, key: str) -> None:
        """Passes the lead to the next request that waits, since the leader has failed or its client has left."""
        group = self._groups[tenant, key]
        self._assign(group, group.flight.failed(), "failed")
        if group.flight.state is FlightState.SETTLED:
            del self._groups[tenant, key]
            self._release((tenant, key), group.owner)

    def _leave(self, place: Place, group: _Group, member: int) -> None:
        group.flight.leave(member)
        group.changed.set()
        if group.flight.state is FlightState.SETTLED and self._groups.get(place) is group and group.entry is None:
            del self._groups[place]

    async def _ask(self, place: Place, group: _Group) -> None:
        """Asks the store until it is known who leads, or there is an entry."""
        pause_s, flight = MIN_POLL_S, group.flight
        while flight.state in ASKED:
            event, entry = await self._answer(place, group)
            if flight.state not in ASKED:  # all have left meanwhile
                if event is FlightEvent.GRANTED:
                    self._release(place, group.owner)
                return
            assigned = flight.asked(event)
            if flight.state is FlightState.SETTLED:
                del self._groups[place]
            self._assign(group, assigned, "unavailable" if event is FlightEvent.UNAVAILABLE else "unshared", entry)
            if flight.state is FlightState.LEADING:
                self._renew()
            elif flight.state is FlightState.FOLLOWING:
                await asyncio.sleep(pause_s)
                pause_s = min(MAX_POLL_S, 1.5 * pause_s)

    async def _answer(self, place: Place, group: _Group) -> tuple[FlightEvent, CacheEntry | None]:
        """Asks the store once. A poisoned entry is removed, and the store asked again."""
        lease_ms = int(1000 * self._lease_s)
        try:
            try:
                found = await self._store.find_or_lead(*place, group.owner, lease_ms)
            except PoisonedEntryError:
                self._on_poisoned()
                await self._store.discard(*place)
                found = await self._store.find_or_lead(*place, group.owner, lease_ms)
        except (StateUnavailableError, PoisonedEntryError):
            return FlightEvent.UNAVAILABLE, None
        except Exception as error:  # noqa: BLE001 a fault of the store must not leave requests waiting
            logger.error("the answer cache cannot be asked: %s", type(error).__name__)
            return FlightEvent.UNAVAILABLE, None
        if not isinstance(found, Lease):
            return FlightEvent.FOUND, found
        group.epoch = found.epoch
        if found.unshared:
            return FlightEvent.UNSHARED, None
        return (FlightEvent.GRANTED if found.leading else FlightEvent.REFUSED), None

    def _assign(
        self, group: _Group, assigned: Sequence[Assignment], reason: str, entry: CacheEntry | None = None
    ) -> None:
        group.changed.set()
        for member, role in assigned:
            if (future := group.roles.get(member)) is not None and not future.done():
                shared = (entry or group.entry) if role is FlightRole.SHARE else None
                alone = reason if role is FlightRole.ALONE else ""
                epoch = group.epoch if role is FlightRole.LEAD else None
                future.set_result(Joined(role, shared, group.entry is not None, alone, epoch))

    def _leading(self) -> list[tuple[Place, _Group]]:
        return [each for each in self._groups.items() if each[1].flight.state is FlightState.LEADING]

    def _renew(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._keep_renewing())

    async def _keep_renewing(self) -> None:
        """Renews the leases of this router's leaders while there are any."""
        lease_ms = int(1000 * self._lease_s)
        while self._leading():
            await asyncio.sleep(self._lease_s / 3)
            calls = [partial(self._store.renew, *place, each.owner, lease_ms) for place, each in self._leading()]
            await bounded_gather(calls, MAX_RENEWALS_AT_ONCE)

    def _release(self, place: Place, owner: str, unshared_ms: int = 0) -> None:
        """Ends the lease on ``place`` soon."""

        async def release() -> None:
            with contextlib.suppress(StateUnavailableError):
                await self._store.release(*place, owner, unshared_ms)

        task = asyncio.create_task(release())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
