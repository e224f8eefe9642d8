"""CPU seconds of processes, from /proc: what a server costs, counted apart from what loads it. Linux only."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def own_cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def process_tree(roots: Iterable[int]) -> set[int]:
    """The given processes and all that descend from them, this process left out."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        if (fields := _stat(pid)) is not None:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found and pid != os.getpid():
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time of each process that is still there."""
    tick = os.sysconf("SC_CLK_TCK")
    stats = {pid: _stat(pid) for pid in pids}
    return {pid: (int(fields[11]) + int(fields[12])) / tick for pid, fields in stats.items() if fields is not None}


class CpuMeter:
    """CPU seconds that the trees below some processes used since the meter was made.

    A process that ended in between is lost to the count; one that started is counted in full.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = tuple(roots)
        self._before = cpu_seconds(process_tree(self._roots))

    def seconds(self) -> float:
        """Used since the meter was made."""
        now = cpu_seconds(process_tree(self._roots))
        return sum(spent - self._before.get(pid, 0.0) for pid, spent in now.items())


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name, which may itself hold spaces and brackets: state, ppid, ..."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has ended
    return text[text.rindex(")") + 2 :].split()
