"""``LedgerWriter``: writes entries asynchronously (write-behind) and at least once; the store drops duplicates.

An entry is in the journal when ``record`` returns. A task appends what the journal holds to the store, in batches, and
releases it. What was appended but not released, because this process or the store ended in between, is appended again.
An entry is lost if the journal is full or its disk fails, or if the machine crashes before the disk has the line.

A tenant whose entries the store does not take, for example because its node of a cluster is down, does not hold up the
others: its entries go to the end of the journal again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from cluster.state.journal import Journal, JournalFullError
from router.bounded_gather import bounded_gather
from router.ports.ledger_store import LedgerEntry
from router.ports.state_store import StateUnavailableError
from router.supervision import keep_running

logger = logging.getLogger(__name__)

BATCH = 256
MAX_TENANTS_AT_ONCE = 8  # whose entries are sent side by side
RETRY_S = 0.25  # after the store or the disk has failed
ADOPT_S = 10.0  # between looks for the journals of processes that have ended


class LedgerWriter:
    """Moves entries from the journal to the store. ``append`` adds entries to the store, each once, or raises
    StateUnavailableError. ``lost`` is the number of entries that the journal could not take."""

    def __init__(self, journal: Journal, append: Callable[[Sequence[LedgerEntry]], Awaitable[int]]) -> None:
        self._journal = journal
        self._append = append
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._adopted_at_s = time.monotonic()
        self.lost = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes of entries that wait in the journal."""
        return self._journal.waiting_bytes

    def start(self) -> None:
        """Starts the task that writes to the store. It begins with what is in the journal already."""
        self._wake.set()
        self._task = asyncio.create_task(keep_running("the ledger", self._run, RETRY_S))

    async def close(self, timeout_s: float) -> None:
        """Waits for at most ``timeout_s`` seconds until the store has all entries. The others stay in the journal."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                while self._journal.waiting_bytes:
                    self._wake.set()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            logger.warning("%d bytes of ledger entries stay in the journal", self._journal.waiting_bytes)
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        self._journal.close()

    def record(self, entry: LedgerEntry) -> None:
        """Puts ``entry`` into the journal. If that is full or its disk fails, the entry is lost, counted and logged."""
        try:
            self._journal.append(encode(entry))
        except (JournalFullError, OSError) as error:
            self.lost += 1
            logger.error("ledger entry %s of tenant %s is lost: %s", entry.id, entry.tenant, error)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ADOPT_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._write_all()
            except OSError as error:
                logger.error("the journal of the ledger fails, its entries wait: %s", error)
                self._wake.set()
                await asyncio.sleep(RETRY_S)

    async def _write_all(self) -> None:
        """Writes until the journal is empty. Raises OSError."""
        self._adopt()
        while lines := self._journal.peek(BATCH):
            await self._write(lines)
            self._adopt()

    def _adopt(self) -> None:
        """Takes over what processes that have ended left, every ADOPT_S, however busy this one is. Raises OSError."""
        if (now_s := time.monotonic()) - self._adopted_at_s >= ADOPT_S:
            self._adopted_at_s = now_s
            self._journal.adopt()

    async def _write(self, lines: Sequence[bytes]) -> None:
        """Appends the entries in ``lines`` to the store and releases them. Those that the store does not take go to the
        end of the journal, so that the entries of other tenants behind them do not wait. Raises OSError."""
        by_tenant: defaultdict[str, list[LedgerEntry]] = defaultdict(list)
        for entry in map(decode, lines):
            if entry is not None:
                by_tenant[entry.tenant].append(entry)
        refused = await self._send(by_tenant)
        if refused and len(refused) == len(by_tenant):
            await asyncio.sleep(RETRY_S)  # the store takes nothing
        while refused and not self._postponed(entry for entries in refused.values() for entry in entries):
            await asyncio.sleep(RETRY_S)
            refused = await self._send(refused)
        self._journal.release(lines)

    async def _send(self, by_tenant: Mapping[str, list[LedgerEntry]]) -> dict[str, list[LedgerEntry]]:
        """Appends the entries of each tenant to the store. Returns those that it did not take."""
        calls = [partial(self._append, entries) for entries in by_tenant.values()]
        refused = {}
        for name, outcome in zip(by_tenant, await bounded_gather(calls, MAX_TENANTS_AT_ONCE), strict=True):
            if not isinstance(outcome, BaseException):
                continue
            if not isinstance(outcome, Exception):
                raise outcome
            if not isinstance(outcome, StateUnavailableError):
                logger.error("the ledger entries of tenant %s cannot be written", name, exc_info=outcome)
            refused[name] = by_tenant[name]
        return refused

    def _postponed(self, entries: Iterable[LedgerEntry]) -> bool:
        """Puts ``entries`` at the end of the journal. Returns False if it is too full for that. A crash before their
        first lines are released leaves them in it twice, which is harmless. Raises OSError."""
        try:
            for entry in entries:
                self._journal.append(encode(entry))
        except JournalFullError:
            return False
        return True


def encode(entry: LedgerEntry) -> bytes:
    """Returns ``entry`` as a line of JSON."""
    fields = [entry.id, entry.tenant, entry.at_ms, dict(entry.labels), dict(entry.amounts), entry.document]
    part = [entry.part_of] if entry.part_of else []  # an older release reads whole entries
    return json.dumps(fields + part, separators=(",", ":")).encode()


def decode(line: bytes) -> LedgerEntry | None:
    """Returns the entry in a line of ``encode``. Logs a damaged line and returns None."""
    try:
        return LedgerEntry(*json.loads(line))
    except (ValueError, TypeError):
        logger.error("a line of the journal is damaged and left out")
        return None
