"""Functions that find and end all descendants of this process, by process id.

A Ray head starts about forty processes in sessions of their own. When a process ends, its children become those of
process 1, and would be lost. On Linux an ancestor can adopt them instead, as a "child subreaper". Its descendants are
then always complete, and none has to be found by name.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


def adopt_orphans() -> None:
    """Makes this process a child subreaper: a descendant whose parent ends becomes its child. Raises OSError if the
    kernel refuses."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Makes the kernel send SIGTERM to this process when its parent ends, even by SIGKILL.

    It is called in a child process between fork and exec. Raises OSError if the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_descendants(*, grace_s: float, deadline_s: float) -> list[psutil.Process]:
    """Ends all descendants of this process, including those that start meanwhile. ``adopt_orphans`` must have been
    called before they start.

    Each gets SIGTERM, and SIGKILL if it still runs ``grace_s`` seconds after the call. Waits until none runs, or until
    ``deadline_s`` seconds after the call. Returns the processes that still run. If this process was suspended for so
    long that the time is over, they get the rest of the time after SIGKILL all the same.
    """
    started = time.monotonic()
    killed_at: float | None = None
    asked: set[psutil.Process] = set()
    while alive := _alive():
        now = time.monotonic()
        if killed_at is not None and now - killed_at > deadline_s - grace_s:
            return alive
        if killed_at is None and now - started > grace_s:
            killed_at = now
        for process in alive:
            if killed_at is not None:
                _send(process, signal.SIGKILL)
            elif process not in asked:
                _send(process, signal.SIGTERM)
                asked.add(process)
        time.sleep(_POLL_S)
        _collect()
    _collect()
    return []


def _alive() -> list[psutil.Process]:
    """Returns the descendants that run."""
    return [process for process in psutil.Process().children(recursive=True) if is_running(process)]


def is_running(process: psutil.Process) -> bool:
    """Returns whether ``process`` has not ended. A zombie has ended; only its exit code was not collected yet."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _collect() -> None:
    """Collects the exit codes of ended children, adopted ones included. Otherwise they would stay as zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return  # none is left


def _send(process: psutil.Process, number: signal.Signals) -> None:
    """Sends a signal to ``process``. No effect if it has ended."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it ended by itself


def _prctl(option: int, value: int) -> None:
    """Calls prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
