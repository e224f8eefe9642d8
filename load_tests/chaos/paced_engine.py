"""``PacedEngine``: the real engine, whose steps take at least a given time."""

from __future__ import annotations

import time

from engine.api import Delta
from engine.engine import Engine


class PacedEngine(Engine):
    """Sleeps at the end of a step until ``step_s`` seconds have passed since its beginning."""

    step_s = 0.0

    def step(self) -> list[Delta]:
        began = time.monotonic()
        deltas = super().step()
        time.sleep(max(0.0, self.step_s - (time.monotonic() - began)))
        return deltas
