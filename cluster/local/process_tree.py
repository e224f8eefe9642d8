"""The process tree below this process: its descendants found, stopped and verified by process id.

A Ray head starts some forty processes in sessions of their own, and the death of one leaves its children to process 1.
Linux lets a process inherit them instead (a "child subreaper"). The tree below it is then complete at all times, and no
process has to be found by its name.
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
    """From now on a descendant whose parent dies becomes a child of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """For a child between fork and exec: it gets SIGTERM when its parent ends, even by SIGKILL."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_descendants(*, grace_s: float, deadline_s: float) -> list[psutil.Process]:
    """SIGTERM to every descendant, SIGKILL to those alive after ``grace_s``. Returns who survived ``deadline_s``."""
    started = time.monotonic()
    asked: set[psutil.Process] = set()
    while alive := _alive():
        elapsed = time.monotonic() - started
        if elapsed > deadline_s:
            return alive
        for process in alive:
            if elapsed > grace_s:
                _send(process, signal.SIGKILL)
            elif process not in asked:
                _send(process, signal.SIGTERM)
                asked.add(process)
        time.sleep(_POLL_S)
        _collect()
    _collect()
    return []


def _alive() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if is_running(process)]


def is_running(process: psutil.Process) -> bool:
    """Whether ``process`` has not ended. A zombie has: it only waits for its parent to collect its exit code."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _collect() -> None:
    """Takes the exit codes of ended children, adopted ones too: until someone does, they stay as zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return  # none is left


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it ended by itself


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
