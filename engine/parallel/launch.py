"""``Launcher``: starts the processes of the ranks from 1 up."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from json import dumps
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Invitation:
    """The start parameters of a worker: the address of rank 0, and the worker's rank."""

    address: str  # path of a Unix socket that only this user may open
    rank: int


class Worker(Protocol):
    """Rank 0's handle of the process of another rank. It ends by itself when its connection closes."""

    def ended(self) -> bool:
        """Returns whether the process is known to have ended."""
        ...

    def kill(self) -> None:
        """Kills the process, even if it hangs. Has no effect if it has ended."""
        ...


class Launcher(Protocol):
    """Starts worker processes, which must be on the machine of rank 0."""

    def launch(self, invitation: Invitation) -> Worker:
        """Starts a worker and returns its handle without waiting for it. The worker calls ``worker.serve`` with the
        invitation."""
        ...


class Subprocesses:
    """Implements ``Launcher`` with child processes, each on the GPU with its rank's number."""

    def launch(self, invitation: Invitation) -> Worker:
        command = [sys.executable, "-m", "engine.parallel.worker", dumps(asdict(invitation))]
        # The same modules as here, wherever this process found them.
        paths = os.pathsep.join(path for path in sys.path if path)
        return _Child(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.DEVNULL))


class _Child:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
