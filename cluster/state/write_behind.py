"""``WriteBehind``: moves entries from a journal on disk to the store, in batches and at least once.

An entry is in the journal when ``record`` returns. An entry that was appended to the store but not released from the
journal, because this process or the store ended in between, is appended again; the store ignores the second one. An
entry is lost if the journal is full or its disk fails, or if the machine crashes before the disk has the line.

A tenant whose entries the store does not take, for example because its node of a cluster is down, does not hold up the
others: its entries are put at the end of the journal again.

The journal's storage may hang, if several machines share it. So a thread does what has to ask it, and the event loop
waits for nothing but the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, Protocol, TypeVar

from cluster.state.disk_journal import DiskJournal, JournalFullError
from router.bounded_gather import bounded_gather
from router.keep_running import keep_running
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

BATCH = 256
MAX_TENANTS_AT_ONCE = 8  # whose entries are sent side by side
GATHER_S = 0.05  # that an entry waits for others: the store takes a batch in little more than the time of one
RETRY_S = 0.25  # after the store or the disk has failed
CLOSE_S = 5.0  # that the journal's storage may take at the end
ADOPT_S = 10.0  # between looks for the journals of processes that have ended


class Entry(Protocol):
    """An entry to be written. It belongs to a tenant and has a unique id."""

    @property
    def id(self) -> str: ...

    @property
    def tenant(self) -> str: ...


E = TypeVar("E", bound=Entry)
R = TypeVar("R")


class WriteBehind(Generic[E]):
    """Writes entries to the store in the background. ``name`` is for the log. ``encode`` turns an entry into a line;
    ``decode`` turns a line into an entry, and raises ValueError or TypeError for a damaged one. ``append`` adds entries
    of one tenant to the store, each once, or raises StateUnavailableError. ``lost`` is the number of entries that the
    journal could not take; ``on_lost`` is called for each."""

    def __init__(
        self,
        name: str,
        journal: DiskJournal,
        encode: Callable[[E], bytes],
        decode: Callable[[bytes], E],
        append: Callable[[Sequence[E]], Awaitable[int]],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._journal = journal
        self._encode = encode
        self._decode = decode
        self._append = append
        self._on_lost = on_lost
        self._thread = ThreadPoolExecutor(1, "journal")
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._adopted_at_s = time.monotonic()
        self.lost = 0

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes of entries that wait in the journal."""
        return self._journal.waiting_bytes

    def start(self) -> None:
        """Starts the background task that writes to the store. It begins with the entries that are already in the
        journal."""
        self._wake.set()
        self._task = asyncio.create_task(keep_running(self._name, self._run, RETRY_S))

    async def close(self, timeout_s: float) -> None:
        """Waits for at most ``timeout_s`` seconds until the store has all entries, then stops the background task and
        closes the journal. Entries that the store has not stay there, for the next process."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                while self._journal.waiting_bytes:
                    self._wake.set()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            logger.warning("%s: %d bytes stay in the journal", self._name, self._journal.waiting_bytes)
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._on_thread(self._journal.close)  # behind what the thread still does
        except TimeoutError:
            logger.error("%s: the journal cannot be closed, its storage does not answer", self._name)
        finally:
            self._thread.shutdown(wait=False)

    def record(self, entry: E) -> None:
        """Puts ``entry`` into the journal. If the journal is full or its disk fails, the entry is lost, which is
        counted and logged."""
        try:
            self._journal.append(self._encode(entry))
        except (JournalFullError, OSError) as error:
            self.lost += 1
            self._on_lost()
            logger.error("%s: entry %s of tenant %s is lost: %s", self._name, entry.id, entry.tenant, error)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ADOPT_S):
                    await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            try:
                await self._write_all()
            except OSError as error:
                logger.error("%s: the journal fails, its entries wait: %s", self._name, error)
                self._wake.set()
                await asyncio.sleep(RETRY_S)

    async def _write_all(self) -> None:
        """Writes until the journal is empty, or what has come meanwhile is no batch yet. Raises OSError."""
        await self._adopt()
        while lines := await self._first_lines():
            await self._write(lines)
            await self._on_thread(self._journal.tidy)  # so that little comes again after the end of this process
            await self._adopt()
            if len(lines) < BATCH and self._journal.waiting_bytes:
                self._wake.set()
                return

    async def _first_lines(self) -> Sequence[bytes]:
        """Returns the lines to be written next. Raises OSError if they cannot be read; others come next then."""
        read = self._journal.reading(BATCH)
        try:
            return await self._on_thread(read)
        except OSError:
            self._journal.give_up()
            raise

    async def _on_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _adopt(self) -> None:
        """Takes over what processes that have ended left, every ADOPT_S, however busy this one is. Raises OSError."""
        if (now_s := time.monotonic()) - self._adopted_at_s >= ADOPT_S:
            self._adopted_at_s = now_s
            await self._on_thread(self._journal.tidy)  # what a fault has kept it from
            self._journal.adopt(await self._on_thread(self._journal.orphans()))

    async def _write(self, lines: Sequence[bytes]) -> None:
        """Appends the entries in ``lines`` to the store and releases them. Those that the store does not take go to the
        end of the journal, so that the entries of other tenants behind them do not wait. Raises OSError."""
        by_tenant: defaultdict[str, list[E]] = defaultdict(list)
        for line in lines:
            try:
                entry = self._decode(line)
            except (ValueError, TypeError):
                logger.error("%s: a line of the journal is damaged and left out", self._name)
                continue
            by_tenant[entry.tenant].append(entry)
        refused = await self._send(by_tenant)
        if refused and len(refused) == len(by_tenant):
            await asyncio.sleep(RETRY_S)  # the store takes nothing
        while refused and not self._postponed(entry for entries in refused.values() for entry in entries):
            await asyncio.sleep(RETRY_S)
            refused = await self._send(refused)
        try:
            await self._on_thread(self._journal.tidy)
        finally:  # the store has them: on a full disk, room comes from what was released
            self._journal.release(lines)

    async def _send(self, by_tenant: Mapping[str, list[E]]) -> dict[str, list[E]]:
        """Appends the entries of each tenant to the store. Returns those that it did not take."""
        calls = [partial(self._append, entries) for entries in by_tenant.values()]
        refused = {}
        for name, outcome in zip(by_tenant, await bounded_gather(calls, MAX_TENANTS_AT_ONCE), strict=True):
            if not isinstance(outcome, BaseException):
                continue
            if not isinstance(outcome, Exception):
                raise outcome
            if not isinstance(outcome, StateUnavailableError):
                logger.error("%s: the entries of tenant %s cannot be written", self._name, name, exc_info=outcome)
            refused[name] = by_tenant[name]
        return refused

    def _postponed(self, entries: Iterable[E]) -> bool:
        """Puts ``entries`` at the end of the journal. Returns False if it is too full for that. A crash before their
        first lines are released leaves them in it twice, which is harmless. Raises OSError."""
        try:
            for entry in entries:
                self._journal.append(self._encode(entry))
        except JournalFullError:
            return False
        return True
