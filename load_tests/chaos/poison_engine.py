"""``PoisonEngine``: the real engine, which a request with the words POISON kills."""

from __future__ import annotations

import os
import signal
from typing import Any

from engine.admission import Job
from engine.api import Delta, GenerationRequest
from load_tests.chaos.engines import POISON
from load_tests.chaos.paced_engine import PacedEngine


class PoisonEngine(PacedEngine):
    """Kills its own process when a poisonous request is to get its first token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._poisonous: set[str] = set()  # ids of requests

    def prepare(self, request: GenerationRequest) -> Job:
        if POISON in repr(request.prompt):
            self._poisonous.add(request.request_id)
        return super().prepare(request)

    def step(self) -> list[Delta]:
        deltas = super().step()
        if any(delta.request_id in self._poisonous for delta in deltas):
            os.kill(os.getpid(), signal.SIGKILL)
        return deltas
