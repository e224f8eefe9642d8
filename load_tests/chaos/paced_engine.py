"""``PacedEngine``: the real engine, whose steps take at least a given time, and which can be killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from engine.api import Delta
from engine.engine import Engine


class PacedEngine(Engine):
    """Sleeps at the end of a step until ``step_s`` seconds have passed since its beginning. Raises KilledError in the
    first step after a file named by its process id has come into the directory ``kills``; None: it lives on."""

    step_s = 0.0
    kills: Path | None = None

    def step(self) -> list[Delta]:
        if self.kills is not None and (self.kills / str(os.getpid())).exists():
            raise KilledError
        began = time.monotonic()
        deltas = super().step()
        time.sleep(max(0.0, self.step_s - (time.monotonic() - began)))
        return deltas


class KilledError(Exception):
    """The engine was to die."""
