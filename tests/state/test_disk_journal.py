"""The journal: what was put in comes out once, whichever process ends in between."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.state.disk_journal import DiskJournal, JournalFullError
from cluster.state.ledger_writer import LedgerWriter, decode, encode
from cluster.state.redis_store import default_journal
from router.ports.ledger_store import LedgerEntry
from router.ports.state_store import StateUnavailableError

MAX_BYTES = 100_000


def drain(journal: DiskJournal, at_once: int = 3) -> list[bytes]:
    found: list[bytes] = []
    while lines := journal.peek(at_once):
        found += lines
        journal.release(lines)
    return found


@pytest.mark.parametrize("segment_bytes", [1, 50, 10**6])
def test_lines_come_out_in_order_and_leave_no_file(tmp_path: Path, segment_bytes: int) -> None:
    journal = DiskJournal(tmp_path, MAX_BYTES, segment_bytes)
    lines = [b"line %d" % n for n in range(100)]
    for line in lines:
        journal.append(line)

    assert drain(journal) == lines
    assert journal.waiting_bytes == 0
    journal.append(b"one more")
    assert drain(journal) == [b"one more"]
    journal.close()
    assert not list(tmp_path.iterdir())


def test_what_is_not_released_comes_again_after_the_end_of_the_process(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path, MAX_BYTES)
    for line in (b"a", b"b", b"c"):
        journal.append(line)
    journal.release(journal.peek(1))
    journal.close()

    assert set(drain(DiskJournal(tmp_path, MAX_BYTES))) >= {b"b", b"c"}


def test_the_segments_of_a_living_process_are_left_alone_and_those_of_a_dead_one_adopted(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cluster.state.disk_journal import DiskJournal\n"
        f"journal = DiskJournal(Path({str(tmp_path)!r}), {MAX_BYTES})\n"
        "journal.append(b'left'); print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        journal = DiskJournal(tmp_path, MAX_BYTES)
        assert journal.peek(9) == ()

        process.send_signal(signal.SIGKILL)
        process.wait()
    journal.adopt(journal.orphans()())
    journal.append(b"own")
    assert drain(journal) == [b"left", b"own"]


def test_a_journal_that_is_half_full_leaves_the_rest_to_others(tmp_path: Path) -> None:
    """One router would take all that many have left, and have no room for its own entries."""
    for number in range(10):
        (tmp_path / f"{number}.journal").write_bytes(b"x" * 99 + b"\n")
    journal, other = DiskJournal(tmp_path, 600), DiskJournal(tmp_path, 10_000)

    assert journal.waiting_bytes == 300
    assert other.waiting_bytes == 700
    journal.append(b"y" * 299)


def test_what_was_released_may_come_again_until_its_file_was_emptied(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path, MAX_BYTES)
    journal.append(b"a")
    journal.release(journal.peek(1))
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == b"a\n"
    journal.tidy()
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b""]
    journal.append(b"b")
    assert path.read_bytes() == b"b\n"
    assert journal.waiting_bytes == 2


def test_without_a_spare_segment_a_full_one_grows(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path, MAX_BYTES, segment_bytes=4)
    lines = [b"line %d" % n for n in range(10)]
    for line in lines[:5]:
        journal.append(line)
    assert len(list(tmp_path.iterdir())) == 1
    journal.tidy()
    for line in lines[5:]:
        journal.append(line)
    assert len(list(tmp_path.iterdir())) == 2
    assert drain(journal) == lines


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "left.journal").write_bytes(b"whole\nha")
    journal = DiskJournal(tmp_path, MAX_BYTES)
    journal.append(b"next")

    assert drain(journal) == [b"whole", b"ha", b"next"]


def test_a_line_longer_than_a_read_comes_out_whole(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path, 10**7)
    journal.append(b"x" * 10**6)

    assert drain(journal) == [b"x" * 10**6]


def test_a_full_journal_refuses_and_has_room_again_when_lines_are_released(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path, 20)
    journal.append(b"x" * 15)
    with pytest.raises(JournalFullError):
        journal.append(b"y" * 15)

    drain(journal)
    journal.append(b"y" * 15)


ENTRY = LedgerEntry("e1", "acme", 5, {"team": "a\nb"}, {"tokens": 2**52}, '{"x": 1}')


def test_an_entry_survives_its_line() -> None:
    assert decode(encode(ENTRY)) == ENTRY
    assert b"\n" not in encode(ENTRY)


async def test_the_writer_appends_again_until_the_store_has_taken_an_entry(tmp_path: Path) -> None:
    calls: list[Sequence[LedgerEntry]] = []

    async def append(entries: Sequence[LedgerEntry]) -> int:
        calls.append(entries)
        if len(calls) == 1:
            raise StateUnavailableError("down")
        return len(entries)

    (tmp_path / "left.journal").write_bytes(b"no entry\n")
    writer = LedgerWriter(DiskJournal(tmp_path, MAX_BYTES), append)
    writer.start()
    writer.record(ENTRY)
    await writer.close(5.0)

    assert calls[-1] == [ENTRY]
    assert os.listdir(tmp_path) == []


async def test_entries_without_room_are_counted(tmp_path: Path) -> None:
    async def append(entries: Sequence[LedgerEntry]) -> int:
        raise StateUnavailableError("down")

    writer = LedgerWriter(DiskJournal(tmp_path, 100), append)
    for _ in range(3):
        writer.record(ENTRY)

    assert writer.lost == 2


def test_the_default_directory_is_this_users_and_this_redis(tmp_path: Path) -> None:
    first = default_journal("redis://user:secret@redis:6379/0", tmp_path)

    assert first.stat().st_mode & 0o777 == 0o700
    assert default_journal("redis://user:other@redis:6379/0", tmp_path) == first
    assert default_journal("redis://user:secret@elsewhere:6379/0", tmp_path) != first
    assert "secret" not in str(first)


@pytest.mark.parametrize("others", ["may write", "made a link"])
def test_a_default_directory_that_others_can_fill_is_refused(tmp_path: Path, others: str) -> None:
    directory = default_journal("redis://redis:6379/0", tmp_path)
    if others == "may write":
        directory.chmod(0o777)
    else:
        directory.rmdir()
        directory.symlink_to(tmp_path, target_is_directory=True)

    with pytest.raises(PermissionError, match="only this user"):
        default_journal("redis://redis:6379/0", tmp_path)


def test_a_segment_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "x.journal").symlink_to(target)

    assert DiskJournal(tmp_path / "journal", 1 << 20).waiting_bytes == 0
    assert target.read_text() == "precious"


def test_a_line_for_which_the_disk_has_no_room_leaves_nothing_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, write = DiskJournal(tmp_path, MAX_BYTES), os.pwrite
    journal.append(b"before")
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: write(descriptor, data[:3], at))
    with pytest.raises(OSError, match="full"):
        journal.append(b"too long")
    monkeypatch.setattr(os, "pwrite", write)
    journal.append(b"after")

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before\nafter\n"]
    assert drain(journal) == [b"before", b"after"]


def test_a_new_file_that_another_process_locks_first_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, locked = os.open, list[int]()

    def opened(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = opens(path, flags, mode)
        if flags & os.O_CREAT and not locked:
            locked.append(opens(path, os.O_RDWR))
            fcntl.flock(locked[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    journal = DiskJournal(tmp_path, MAX_BYTES)
    journal.append(b"a")

    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [0, 2]
    assert drain(journal) == [b"a"]
    os.close(locked[0])


@pytest.mark.parametrize("fails", ["open", "flock"])
def test_a_segment_that_cannot_be_adopted_keeps_nobody_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.journal").write_bytes(b"of %s\n" % name.encode())
    bad, opens, lock = (tmp_path / "b.journal").stat().st_ino, os.open, fcntl.flock

    def opened(path: Path, flags: int, mode: int = 0o777) -> int:
        if fails == "open" and path.name == "b.journal":
            raise PermissionError(errno.EACCES, "not yours")
        return opens(path, flags, mode)

    def locked(descriptor: int, how: int) -> None:
        if fails == "flock" and os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.ENOLCK, "no locks")
        lock(descriptor, how)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(fcntl, "flock", locked)
    journal = DiskJournal(tmp_path, MAX_BYTES)
    before = len(os.listdir("/proc/self/fd"))
    journal.adopt(journal.orphans()())

    assert len(os.listdir("/proc/self/fd")) == before
    assert "b.journal cannot be adopted" in caplog.text
    assert sorted(drain(journal)) == [b"of a", b"of c"]
    assert (tmp_path / "b.journal").read_bytes() == b"of b\n"


def test_a_segment_that_cannot_be_read_is_left_to_who_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on NFS whose lock the server has given up."""
    journal, read = DiskJournal(tmp_path, MAX_BYTES), os.pread
    journal.append(b"first")

    def refused(*_: int) -> bytes:
        raise OSError(errno.EIO, "the lock was lost")

    monkeypatch.setattr(os, "pread", refused)
    with pytest.raises(OSError, match="lost"):
        journal.peek(1)
    monkeypatch.setattr(os, "pread", read)
    journal.give_up()
    journal.append(b"second")
    assert drain(journal) == [b"second"]
    journal.tidy()
    journal.adopt(journal.orphans()())
    assert drain(journal) == [b"first"]


def test_a_segment_that_another_has_emptied_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    journal = DiskJournal(tmp_path, MAX_BYTES)
    journal.append(b"mine")
    (path,) = tmp_path.iterdir()
    os.truncate(path, 0)

    with pytest.raises(OSError, match="shorter"):
        journal.peek(1)


def test_a_line_goes_to_another_segment_if_the_present_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, write = DiskJournal(tmp_path, MAX_BYTES), os.pwrite
    journal.append(b"before")
    (path,) = tmp_path.iterdir()
    refused = path.stat().st_ino

    def written(descriptor: int, data: bytes, at: int) -> int:
        if os.fstat(descriptor).st_ino == refused:
            raise OSError(errno.EIO, "the lock was lost")
        return write(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", written)
    journal.tidy()
    journal.append(b"after")
    assert drain(journal) == [b"before", b"after"]


def test_lines_are_added_to_no_segment_of_another_process(tmp_path: Path) -> None:
    (tmp_path / "left.journal").write_bytes(b"left\n")
    journal = DiskJournal(tmp_path, MAX_BYTES)
    journal.append(b"own")

    assert (tmp_path / "left.journal").read_bytes() == b"left\n"
    assert drain(journal) == [b"left", b"own"]
