"""``MakeWatch``: detects that ``make``, the parent of this process, was interrupted.

make forwards SIGTERM to its recipes but not SIGINT, since a terminal sends SIGINT to all processes in the foreground.
If a script interrupts make alone, make waits for a recipe that was not interrupted. But make resets its handler of
SIGINT to the default before it waits, and this process can see that in /proc.
"""

from __future__ import annotations

import os
import signal

import psutil


class MakeWatch:
    """A check of this process's parent, if that is make when it is created. Otherwise it never reports anything."""

    def __init__(self) -> None:
        parent = psutil.Process().parent()
        self._make = (
            parent.pid if parent is not None and parent.name() == "make" and _catches_sigint(parent.pid) else None
        )

    def wants_stop(self) -> bool:
        """Returns whether make was interrupted or has ended, so that the service should stop. False without make."""
        return self._make is not None and (os.getppid() != self._make or not _catches_sigint(self._make))


def _catches_sigint(pid: int) -> bool:
    """Whether the process has a handler of SIGINT. False if it does not exist."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            caught = next((line.split()[1] for line in status if line.startswith("SigCgt:")), "0")
    except OSError:
        return False
    return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)
