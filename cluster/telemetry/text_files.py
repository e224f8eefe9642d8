"""``TextFiles``: the files of a process that have redacted texts, one JSON object a line, and which are kept how long.

Each process has files of its own, ``texts-<process>-<time>.jsonl``, so that none is written by two. A file is begun
anew after a day or FILE_BYTES, and never renamed: what ships it elsewhere only has to follow new names. All processes
of a directory delete what is too old or too much there, also what others have left that have ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE_BYTES = 64 * 1024 * 1024
FILE_S = 24 * 3600.0  # for which a file is written, at most
PATTERN = "texts-*.jsonl"


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file in the directory. ``written_at`` is in seconds since the epoch."""

    path: Path
    size: int
    written_at: float


def expired(files: Sequence[TextFile], now: float, keep_s: float, max_bytes: int) -> list[TextFile]:
    """Returns those of ``files`` that are to be deleted: what was written last longer than ``keep_s`` ago, and the
    oldest until the others have ``max_bytes`` together."""
    gone, left = list[TextFile](), sum(file.size for file in files)
    for file in sorted(files, key=lambda each: each.written_at):
        if now - file.written_at > keep_s or left > max_bytes:
            gone.append(file)
            left -= file.size
    return gone


class TextFiles:
    """Writes lines to files of ``process`` in ``directory``, which only this user can read. Used on one thread.

    Files are kept for ``keep_s`` seconds after their last line; all of the directory have ``max_bytes``, and the one
    that is being written. ``clock`` returns seconds since the epoch.
    """

    def __init__(
        self, directory: Path, process: str, keep_s: float, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._process = process
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._descriptor: int | None = None
        self._began_at = 0.0

    def prepare(self) -> None:
        """Makes the directory, and deletes the files that are not kept any longer. Raises OSError, also for a directory
        that cannot be written."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise PermissionError(f"{self._directory} cannot be written, where texts are to be logged")
        self.prune()

    def write(self, line: bytes) -> None:
        """Appends ``line``, which ends with a line feed. Raises OSError if the disk fails; no part of it stays then."""
        descriptor = self._file()
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError("the disk is full")
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def prune(self) -> None:
        """Deletes the files that are not kept any longer. Raises OSError."""
        files = []
        for path in self._directory.glob(PATTERN):
            try:
                status = path.lstat()
            except FileNotFoundError:  # another process has deleted it
                continue
            files.append(TextFile(path, status.st_size, status.st_mtime))
        for file in expired(files, self._clock(), self._keep_s, self._max_bytes):
            file.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the present file, if there is one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _file(self) -> int:
        """Returns the descriptor of the file to write, a new one where the present one is full, old or deleted."""
        if self._descriptor is not None:
            status = os.fstat(self._descriptor)
            old = self._clock() - self._began_at > FILE_S
            if status.st_size < FILE_BYTES and status.st_nlink and not old:
                return self._descriptor
            self.close()
        self._began_at = self._clock()
        name = f"texts-{self._process}-{time.time_ns()}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._directory / name, flags, 0o600)
        self.prune()
        return self._descriptor
