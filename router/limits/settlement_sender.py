"""``SettlementSender``: sends settlements to the store until it has taken them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

from router.bounded_gather import bounded_gather, results_of
from router.keep_running import keep_running
from router.ports.limit_store import Charge, LimitStore, Reservation
from router.ports.state_store import StateUnavailableError

MAX_UNSETTLED = 100_000  # settlements that wait for the store; beyond, the end of the lease settles them
BATCH = 256  # settlements that are sent again before the store is known to be back
MAX_AT_ONCE = 8
CLOSE_S = 2.0  # the longest that ``close`` waits for settlements


class _Unsettled(NamedTuple):
    """A settlement that the store has not taken: a reservation with what its request has used as its charge."""

    used: Reservation
    unchecked: bool


class SettlementSender:
    """The settlements of one router. Those that the store did not take are sent again every ``retry_s`` seconds."""

    def __init__(self, store: LimitStore, retry_s: float) -> None:
        self._store = store
        self._retry_s = retry_s
        self._unsettled: dict[str, _Unsettled] = {}  # by the reservation's id
        self._tasks: set[asyncio.Task[None]] = set()
        self._retrying: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the background task that repeats settlements which the store has not taken."""
        self._retrying = asyncio.create_task(keep_running("settling", self._retry, self._retry_s))

    async def close(self) -> None:
        """Waits at most CLOSE_S seconds for running settlements, and stops the background task."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.wait({self._retrying})
            self._retrying = None

    def settle(self, reservation: Reservation, charge: Charge, *, unchecked: bool = False) -> None:
        """Replaces the reserved charge by ``charge`` in the background, and returns at once. While MAX_UNSETTLED
        settlements wait, drops it: the store then settles the reservation itself when its lease runs out.
        ``unchecked``: the request ran though the store was not reached, so that it may have no reservation; its charge
        counts all the same."""
        if len(self._unsettled) >= MAX_UNSETTLED:
            return
        self._unsettled[reservation.id] = _Unsettled(replace(reservation, charge=charge), unchecked)
        task = asyncio.create_task(self._send(reservation.id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, reservation_id: str) -> None:
        """Sends one settlement to the store. If that fails, the next round sends it again."""
        if (unsettled := self._unsettled.get(reservation_id)) is None:
            return  # a round came first
        used = unsettled.used
        with contextlib.suppress(StateUnavailableError):
            if unsettled.unchecked:
                await self._store.count(used)
            else:
                await self._store.settle(used.tenant, reservation_id, used.charge)
            self._unsettled.pop(reservation_id, None)

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            while batch := list(islice(self._unsettled, BATCH)):
                results_of(await bounded_gather([partial(self._send, each) for each in batch], MAX_AT_ONCE))
                if any(each in self._unsettled for each in batch):
                    break  # the store is not back
