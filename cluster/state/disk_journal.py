"""``DiskJournal``: lines on disk that wait to be written elsewhere. A bounded queue that survives its process.

A journal is a directory of segments, files that are only appended to. A process locks its segments. If it dies, the
lock is released and another process adopts them. A line is in the operating system's cache when ``append`` returns: it
survives the end of the process, not that of the machine.

The directory may be on storage that several machines share, if its locks hold between them. Such storage is slow, and
may hang. So ``append`` only writes to an open file of this process, which the cache does. What has to ask the storage
is done on another thread: ``tidy``, and what ``orphans`` and ``reading`` return. If ``tidy`` is called before each
``release``, ``append`` has a spare segment, and opens no file; without one it goes on with a full segment.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

logger = logging.getLogger(__name__)

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
        self._read: deque[Segment] = deque()  # wholly released, to be emptied, or given up, to be closed
        self._spare: deque[Segment] = deque()  # empty
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._segments.append(_new(directory))
        self.adopt(self.orphans()())

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes that have not been released."""
        return sum(segment.size - segment.read for segment in self._segments)

    def orphans(self) -> Callable[[], list[Segment]]:
        """Returns a function that locks and returns the segments of processes that have ended, for ``adopt``. It may be
        called on another thread, and raises OSError. A segment that cannot be opened is logged and left.

        It takes no more than half of ``max_bytes``: this journal keeps room for its own lines, and other processes may
        take the rest.
        """
        own = frozenset(segment.path for segment in (*self._segments, *self._read, *self._spare))
        return partial(_orphans, self._directory, own, self._max_bytes // 2 - self.waiting_bytes)

    def adopt(self, orphans: Sequence[Segment]) -> None:
        """Puts ``orphans``, the segments of processes that have ended, at the head of the queue."""
        if not self._segments and self._spare:  # lines go to files of this process, which are in its cache
            self._segments.append(self._spare.popleft())
        self._segments.extendleft(orphans)

    def tidy(self) -> None:
        """Empties or deletes the segments that were released, closes those that were given up, and sees to a spare one.
        It may be called on another thread, while ``append`` is called. Raises OSError."""
        while self._read:
            segment = self._read.popleft()
            if segment.read < segment.size:
                os.close(segment.descriptor)
                continue
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
        try:
            _write(self._segments[-1], data)
        except OSError:
            # NFS refuses a file for ever whose lock the server has given up. An empty one fails for another reason.
            if not self._segments[-1].size or not self._spare:
                raise
            self._segments.append(self._spare.popleft())
            _write(self._segments[-1], data)

    def peek(self, max_lines: int) -> Sequence[bytes]:
        """Returns the first lines as ``reading`` does. Raises OSError."""
        return self.reading(max_lines)()

    def reading(self, max_lines: int) -> Callable[[], Sequence[bytes]]:
        """Returns a function that returns the first lines, at most ``max_lines`` of the first segment. They stay until
        ``release``. It may be called on another thread, and raises OSError.

        Its result may include a truncated line of a crashed process.
        """
        while self._segments and self._segments[0].read >= self._segments[0].size:
            if len(self._segments) == 1 and self._segments[0].size < self._segment_bytes:
                return tuple
            self._read.append(self._segments.popleft())
        return partial(_lines, self._segments[0], max_lines) if self._segments else tuple

    def give_up(self) -> None:
        """Leaves the first segment, which cannot be read, to the process that next finds it among the orphans. ``tidy``
        closes it."""
        self._read.append(self._segments.popleft())

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
        if path in own:
            continue
        try:
            segment = _open(path)
        except OSError as error:  # one bad file is no reason to leave the others, or not to start
            logger.error("the journal %s cannot be adopted: %s", path, error.strerror)
            continue
        if segment is not None:
            found.append(segment)
            room -= segment.size
    return found


def _write(segment: Segment, data: bytes) -> None:
    """Adds ``data`` at the end of ``segment``, or nothing. Raises OSError."""
    written = os.pwrite(segment.descriptor, data, segment.size)
    if written != len(data):
        os.ftruncate(segment.descriptor, segment.size)
        raise OSError("the disk is full")
    segment.size += written


def _lines(segment: Segment, max_lines: int) -> Sequence[bytes]:
    size = READ_BYTES
    while b"\n" not in (data := os.pread(segment.descriptor, size, segment.read)):
        if len(data) < size:
            raise OSError(f"{segment.path} is shorter than what was written to it")
        size *= 2
    return data[: data.rindex(b"\n")].split(b"\n")[:max_lines]


def _new(directory: Path) -> Segment:
    while (segment := _open(directory / f"{uuid.uuid4().hex}{SUFFIX}", create=True)) is None:
        pass  # another process has found it before it was locked here
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
        size = status.st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # its process ended while it wrote a line
            size += os.pwrite(descriptor, b"\n", size)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    if status.st_nlink == 0:  # deleted between opening and locking
        os.close(descriptor)
        return None
    return Segment(path, descriptor, size)


def _delete(segment: Segment) -> None:
    segment.path.unlink(missing_ok=True)
    os.close(segment.descriptor)
