"""``DiskJournal``: lines on disk that wait to be written elsewhere. A bounded queue that survives its process.

A journal is a directory of segments, files that are only appended to. A process locks its segments. If it dies, the
lock is released and another process adopts them. A line is in the operating system's cache when ``append`` returns: it
survives the end of the process, not that of the machine.

The directory may be on storage that several machines share, if its locks hold between them. Such storage is slow, and
may hang. So ``append``, ``peek`` and ``release`` only write to and read from files that are open, which the cache does.
What has to ask the storage is done on another thread: ``tidy``, and what ``orphans`` returns. If ``tidy`` is called
before each ``release``, ``append`` has a spare segment, and opens no file; without one it goes on with a full segment.
"""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SEGMENT_BYTES = 4 * 1024 * 1024
READ_BYTES = 256 * 1024
SUFFIX = ".journal"
MAX_SPARE = 2  # empty segments that are kept


class JournalFullError(RuntimeError):
    """The journal has no room for another line."""


@dataclass(slots=True)
class Segment:
    """An open and locked file. The bytes before the offset ``read`` have been released."""

    path: Path
    descriptor: int
    size: int
    read: int = 0


class DiskJournal:
    """The queue in ``directory``. ``max_bytes`` includes adopted segments. It is used on one thread, but for ``tidy``.

    Creating it makes the directory and adopts the segments of processes that have ended. Raises OSError.
    """

    def __init__(self, directory: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._segments: deque[Segment] = deque()
        self._read: deque[Segment] = deque()  # wholly released, to be emptied
        self._spare: deque[Segment] = deque()  # empty
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.adopt(self.orphans()())

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes that have not been released."""
        return sum(segment.size - segment.read for segment in self._segments)

    def orphans(self) -> Callable[[], list[Segment]]:
        """Returns a function that locks and returns the segments of processes that have ended, for ``adopt``. It may be
        called on another thread, and raises OSError.

        It takes no more than half of ``max_bytes``: this journal keeps room for its own lines, and other processes may
        take the rest.
        """
        own = frozenset(segment.path for segment in (*self._segments, *self._read, *self._spare))
        return partial(_orphans, self._directory, own, self._max_bytes // 2 - self.waiting_bytes)

    def adopt(self, orphans: Sequence[Segment]) -> None:
        """Puts ``orphans``, the segments of processes that have ended, at the head of the queue."""
        self._segments.extendleft(orphans)

    def tidy(self) -> None:
        """Empties or deletes the segments that were released, and sees to a spare one. It may be called on another
        thread, while ``append`` is called. Raises OSError."""
        while self._read:
            segment = self._read.popleft()
            if len(self._spare) >= MAX_SPARE:
                _delete(segment)
                continue
            try:
                os.ftruncate(segment.descriptor, 0)
            except OSError:
                self._read.append(segment)
                raise
            segment.read = segment.size = 0
            self._spare.append(segment)
        if not self._spare:
            self._spare.append(_new(self._directory))

    def append(self, line: bytes) -> None:
        """Adds a line, without its line feed, at the end. Raises JournalFullError beyond ``max_bytes``, and OSError if
        the disk fails."""
        data = line + b"\n"
        if self.waiting_bytes + len(data) > self._max_bytes:
            raise JournalFullError(f"{self._max_bytes} bytes wait already")
        if self._spare and (not self._segments or self._segments[-1].size >= self._segment_bytes):
            self._segments.append(self._spare.popleft())
        if not self._segments:
            self._segments.append(_new(self._directory))
        segment = self._segments[-1]
        written = os.pwrite(segment.descriptor, data, segment.size)
        if written != len(data):
            os.ftruncate(segment.descriptor, segment.size)
            raise OSError("the disk is full")
        segment.size += written

    def peek(self, max_lines: int) -> Sequence[bytes]:
        """Returns the first lines, at most ``max_lines`` of the first segment. They stay until ``release``.

        The result may include a truncated line of a crashed process. Raises OSError.
        """
        while self._segments and self._segments[0].read >= self._segments[0].size:
            if len(self._segments) == 1 and self._segments[0].size < self._segment_bytes:
                return ()
            self._read.append(self._segments.popleft())
        if not self._segments:
            return ()
        segment = self._segments[0]
        size = READ_BYTES
        while b"\n" not in (data := os.pread(segment.descriptor, size, segment.read)):
            size *= 2
        return data[: data.rindex(b"\n")].split(b"\n")[:max_lines]

    def release(self, lines: Sequence[bytes]) -> None:
        """Removes ``lines``, the result of the last ``peek``. They may come again after the end of the process until
        ``tidy`` was called."""
        segment = self._segments[0]
        segment.read += sum(len(line) + 1 for line in lines)
        if segment.read >= segment.size:
            self._read.append(self._segments.popleft())

    def close(self) -> None:
        """Unlocks the segments. Empty ones are deleted, the others wait for another process. Raises OSError."""
        for segment in (*self._segments, *self._read, *self._spare):
            if segment.read >= segment.size:
                _delete(segment)
            else:
                os.close(segment.descriptor)
        for segments in (self._segments, self._read, self._spare):
            segments.clear()


def _orphans(directory: Path, own: Collection[Path], room: int) -> list[Segment]:
    found: list[Segment] = []
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        if room <= 0:
            break
        if path not in own and (segment := _open(path)) is not None:
            found.append(segment)
            room -= segment.size
    return found


def _new(directory: Path) -> Segment:
    segment = _open(directory / f"{uuid.uuid4().hex}{SUFFIX}", create=True)
    assert segment is not None, "a new file is locked by nothing else"
    return segment


def _open(path: Path, *, create: bool = False) -> Segment | None:
    """Opens and locks a file. Returns None if another process has locked or deleted it, and for
    a symbolic link. Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # a link was not made by a journal
            return None
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if status.st_nlink == 0:  # deleted between opening and locking
        os.close(descriptor)
        return None
    size = status.st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":  # its process ended while it wrote a line
        size += os.pwrite(descriptor, b"\n", size)
    return Segment(path, descriptor, size)


def _delete(segment: Segment) -> None:
    segment.path.unlink(missing_ok=True)
    os.close(segment.descriptor)
