"""Starting the processes of the ranks beside the first."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from json import dumps
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where a worker finds rank 0, and which rank it is."""

    address: str  # path of a Unix socket that only this user may open
    rank: int


class Worker(Protocol):
    """A process of one rank, as rank 0 sees it. It ends by itself when its connection closes."""

    def ended(self) -> bool:
        """Whether it is known to have ended."""
        ...

    def kill(self) -> None:
        """Ends it at once, even if it hangs; it may have ended before."""
        ...


class Launcher(Protocol):
    """Where workers run: always on the machine of rank 0."""

    def launch(self, invitation: Invitation) -> Worker:
        """Starts one, without waiting for it; it calls ``worker.serve`` with the invitation."""
        ...


class Subprocesses:
    """Implements ``Launcher``: children of this process, each with the GPU of its rank's number."""

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
