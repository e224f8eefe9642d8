"""The writer of the ledger goes on, whatever happens to its journal."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.state import write_behind
from cluster.state.disk_journal import DiskJournal
from cluster.state.ledger_writer import LedgerWriter, encode
from router.ports.ledger_store import LedgerEntry
from router.ports.state_store import StateUnavailableError


def entry(number: int, tenant: str = "acme") -> LedgerEntry:
    return LedgerEntry(f"e{number}", tenant, 0, {}, {"requests": 1})


class Ledger:
    """Remembers what was appended."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._changed = asyncio.Condition()

    async def append(self, entries: Sequence[LedgerEntry]) -> int:
        self.ids += [each.id for each in entries]
        async with self._changed:
            self._changed.notify_all()
        return len(entries)

    async def holds(self, *ids: str) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: set(ids) <= set(self.ids))


@pytest.mark.parametrize("operation", ["orphans", "reading", "release", "tidy"])
@pytest.mark.parametrize("error", [OSError("disk"), ValueError("a fault that nobody foresaw")])
async def test_a_failure_of_the_journal_costs_one_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, error: Exception
) -> None:
    monkeypatch.setattr(write_behind, "RETRY_S", 0.01)
    monkeypatch.setattr(write_behind, "ADOPT_S", 0.0)
    journal, ledger = DiskJournal(tmp_path, 65536), Ledger()
    works = getattr(journal, operation)
    failed = asyncio.Event()

    def fails(*arguments: object) -> object:
        if failed.is_set():
            return works(*arguments)
        failed.set()
        raise error

    monkeypatch.setattr(journal, operation, fails)
    writer = LedgerWriter(journal, ledger.append)
    writer.start()
    writer.record(entry(1))
    async with asyncio.timeout(5):
        await failed.wait()
    writer.record(entry(2))

    await ledger.holds("e1", "e2")
    await writer.close(5)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("has_written", [True, False])
async def test_storage_that_hangs_holds_up_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_written: bool
) -> None:
    """As storage that several machines share may."""
    monkeypatch.setattr(write_behind, "ADOPT_S", 0.0)
    ledger, goes_on, hangs = Ledger(), threading.Event(), threading.Event()
    on_loop = threading.get_ident()

    def hanging(name: str) -> Callable[..., Any]:
        works = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if not goes_on.is_set():
                assert threading.get_ident() != on_loop, f"the event loop would hang in {name}"
                hangs.set()
                goes_on.wait(30)
            return works(*arguments, **named)

        return call

    writer = LedgerWriter(DiskJournal(tmp_path, 65536, segment_bytes=200), ledger.append)
    writer.start()
    if has_written:
        writer.record(entry(0))
        await ledger.holds("e0")
    for name in ("open", "ftruncate", "unlink", "scandir", "listdir", "pread"):
        monkeypatch.setattr(os, name, hanging(name))
    async with asyncio.timeout(10):
        for number in range(1, 30):
            writer.record(entry(number))
            await asyncio.sleep(0.01)
    assert hangs.is_set()
    assert writer.lost == 0
    goes_on.set()
    await ledger.holds(*(f"e{number}" for number in range(not has_written, 30)))
    await writer.close(5)
    assert os.listdir(tmp_path) == []


async def test_storage_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "CLOSE_S", 0.1)
    goes_on, unlink = threading.Event(), Path.unlink

    def hanging(path: Path, missing_ok: bool = False) -> None:
        goes_on.wait(30)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", hanging)
    writer = LedgerWriter(DiskJournal(tmp_path, 65536), Ledger().append)
    writer.start()
    async with asyncio.timeout(10):
        await writer.close(5)
    assert not goes_on.is_set()
    goes_on.set()


async def test_what_the_store_has_leaves_the_journal_though_the_disk_has_no_room_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, opens = Ledger(), os.open

    def full(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "full")
        return opens(path, flags, *mode)

    writer = LedgerWriter(DiskJournal(tmp_path, 65536), ledger.append)
    monkeypatch.setattr(os, "open", full)
    writer.record(entry(0))
    writer.start()
    for _ in range(500):
        if not writer.waiting_bytes:
            break
        await asyncio.sleep(0.01)
    assert writer.waiting_bytes == 0
    assert ledger.ids == ["e0"]
    await writer.close(5)


async def test_a_busy_writer_adopts_what_others_have_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "ADOPT_S", 1.0)
    ledger = Ledger()
    writer = LedgerWriter(DiskJournal(tmp_path, 65536), ledger.append)
    writer.start()
    other = DiskJournal(tmp_path, 65536)
    other.append(encode(entry(1)))
    other.close()

    async def busy() -> None:
        for number in range(1000, 10_000):
            writer.record(entry(number))
            await asyncio.sleep(0.002)

    working = asyncio.create_task(busy())
    await ledger.holds("e1")
    working.cancel()
    await writer.close(5)


async def test_a_tenant_whose_entries_fail_holds_up_no_other(tmp_path: Path) -> None:
    ledger = Ledger()

    async def append(entries: Sequence[LedgerEntry]) -> int:
        if any(each.tenant == "lost" for each in entries):
            raise StateUnavailableError("no node answers")
        return await ledger.append(entries)

    writer = LedgerWriter(DiskJournal(tmp_path, 65536), append)
    for number, tenant in enumerate(["lost", "acme", "lost", "other"]):
        writer.record(entry(number, tenant))
    writer.start()

    await ledger.holds("e1", "e3")
    await asyncio.sleep(2 * write_behind.RETRY_S)
    assert sorted(ledger.ids) == ["e1", "e3"]  # sent once
    await writer.close(0.0)


@pytest.mark.parametrize("error", [StateUnavailableError("no node answers"), ValueError("a fault that nobody foresaw")])
async def test_a_tenant_that_always_fails_holds_up_no_later_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(write_behind, "RETRY_S", 0.01)
    ledger, works = Ledger(), asyncio.Event()

    async def append(entries: Sequence[LedgerEntry]) -> int:
        if not works.is_set() and any(each.tenant == "lost" for each in entries):
            raise error
        return await ledger.append(entries)

    writer = LedgerWriter(DiskJournal(tmp_path, 10**6), append)
    for number in range(2 * write_behind.BATCH):
        writer.record(entry(number, "lost"))
    writer.record(entry(-1))
    writer.start()

    await ledger.holds("e-1")
    works.set()
    await ledger.holds(*(f"e{number}" for number in range(2 * write_behind.BATCH)))
    await writer.close(5)
    assert os.listdir(tmp_path) == []


async def test_a_full_journal_keeps_what_the_store_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "RETRY_S", 0.01)
    ledger, works = Ledger(), asyncio.Event()

    async def append(entries: Sequence[LedgerEntry]) -> int:
        if not works.is_set():
            raise StateUnavailableError("no node answers")
        return await ledger.append(entries)

    line = len(encode(entry(1))) + 1
    writer = LedgerWriter(DiskJournal(tmp_path, 3 * line), append)
    for number in (1, 2, 3):
        writer.record(entry(number))
    writer.start()
    await asyncio.sleep(0.1)
    works.set()

    await ledger.holds("e1", "e2", "e3")
    await writer.close(5)
