"""The process between the launcher and a Ray head: ``python -m cluster.local.ray_head_process COMMAND...``.

``ray start --block`` would keep all of Ray's command line in memory (92 MB), only to wait. This process lets ``ray
start`` end, adopts what it has started, and waits in its place. It ends with an error when one of Ray's main processes
ends, and takes all others with it; so it does on SIGTERM, which the kernel sends when the launcher has died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

import psutil

from cluster.local.process_tree import adopt_orphans, stop_descendants

GRACE_S = 3.0  # after SIGTERM, until SIGKILL
DEADLINE_S = 10.0  # after SIGTERM, until a process counts as unkillable


class TerminatedError(Exception):
    """SIGTERM has arrived."""


def run(command: Sequence[str]) -> int:
    """Runs ``command``, which starts processes and ends. Waits until one of those that it has left behind ends, and
    ends all others. Returns the exit code: that of ``command`` if it failed, 0 after SIGTERM, else 1. Raises OSError if
    ``command`` cannot be run.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        adopt_orphans()
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            return code
        ended = wait_for_any({child.pid: child.name() for child in psutil.Process().children()})
        print(f"{ended} has ended; all others are ended too", flush=True)
        return 1
    except TerminatedError:
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop_descendants(grace_s=GRACE_S, deadline_s=DEADLINE_S)


def wait_for_any(children: dict[int, str]) -> str:
    """Waits until one of ``children``, names by process id, has ended, and returns its name with its exit code.

    Other children, whose parents have died and which were adopted, may come and go.
    """
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid in children:
            return f"{children[pid]} (exit code {os.waitstatus_to_exitcode(status)})"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise TerminatedError


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
