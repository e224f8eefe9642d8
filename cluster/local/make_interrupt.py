"""``MakeWatch``: notices that ``make``, the parent of this process, was interrupted.

make passes SIGTERM on to its recipes but not SIGINT, since a terminal sends that to every process in the foreground. A
script that interrupts make alone would leave make waiting for a service that goes on. After an interrupt make resets
its handler of SIGINT to the default before it waits, and this process can see that in /proc.
"""

from __future__ import annotations

import os
import signal

import psutil


class MakeWatch:
    """Watches this process's parent if that is make; otherwise sees nothing."""

    def __init__(self) -> None:
        parent = psutil.Process().parent()
        self._make = (
            parent.pid if parent is not None and parent.name() == "make" and _catches_sigint(parent.pid) else None
        )

    def wants_stop(self) -> bool:
        """Whether make was interrupted, or has died."""
        return self._make is not None and (os.getppid() != self._make or not _catches_sigint(self._make))


def _catches_sigint(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            caught = next((line.split()[1] for line in status if line.startswith("SigCgt:")), "0")
    except OSError:
        return False
    return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)
