"""``DiskJournal``: lines on disk that wait to be written elsewhere. A bounded queue that survives its process.

A journal is a directory of segments, files that are only appended to. A process locks its segments. If it dies, the
lock is released and another process adopts them. A line is in the operating system's cache when ``append`` returns: it
survives the end of the process, not that of the machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 4 * 1024 * 1024
READ_BYTES = 256 * 1024
SUFFIX = ".journal"


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
    """The queue in ``directory``. ``max_bytes`` includes adopted segments. It is used on one thread.

    Creating it makes the directory and adopts the segments of processes that have ended. Raises OSError.
    """

    def __init__(self, directory: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._segments: deque[Segment] = deque()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.adopt()

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes that have not been released."""
        return sum(segment.size - segment.read for segment in self._segments)

    def adopt(self) -> int:
        """Takes over the segments of processes that have ended. Returns their number. Raises OSError."""
        own = {segment.path for segment in self._segments}
        adopted = 0
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            if path not in own and (segment := _open(path)) is not None:
                self._segments.appendleft(segment)
                adopted += 1
        return adopted

    def append(self, line: bytes) -> None:
        """Adds a line, without its line feed, at the end. Raises JournalFullError beyond ``max_bytes``, and OSError if
        the disk fails."""
        data = line + b"\n"
        if self.waiting_bytes + len(data) > self._max_bytes:
            raise JournalFullError(f"{self._max_bytes} bytes wait already")
        if not self._segments or self._segments[-1].size >= self._segment_bytes:
            segment = _open(self._directory / f"{uuid.uuid4().hex}{SUFFIX}", create=True)
            assert segment is not None, "a new file is locked by nothing else"
            self._segments.append(segment)
        segment = self._segments[-1]
        written = os.write(segment.descriptor, data)
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
            _delete(self._segments.popleft())
        if not self._segments:
            return ()
        segment = self._segments[0]
        size = READ_BYTES
        while b"\n" not in (data := os.pread(segment.descriptor, size, segment.read)):
            size *= 2
        return data[: data.rindex(b"\n")].split(b"\n")[:max_lines]

    def release(self, lines: Sequence[bytes]) -> None:
        """Removes ``lines``, the result of the last ``peek``. Raises OSError."""
        segment = self._segments[0]
        segment.read += sum(len(line) + 1 for line in lines)
        if segment.read >= segment.size and len(self._segments) == 1:
            os.ftruncate(segment.descriptor, 0)
            segment.read = segment.size = 0

    def close(self) -> None:
        """Unlocks the segments. Empty ones are deleted, the others wait for another process. Raises OSError."""
        while self._segments:
            segment = self._segments.popleft()
            if segment.read >= segment.size:
                _delete(segment)
            else:
                os.close(segment.descriptor)


def _open(path: Path, *, create: bool = False) -> Segment | None:
    """Opens and locks a file. Returns None if another process has locked or deleted it, and for
    a symbolic link. Raises OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
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
        size += os.write(descriptor, b"\n")
    return Segment(path, descriptor, size)


def _delete(segment: Segment) -> None:
    segment.path.unlink(missing_ok=True)
    os.close(segment.descriptor)
