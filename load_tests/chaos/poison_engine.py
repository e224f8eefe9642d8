"""``PoisonEngine``: the real engine, which a request with the words POISON or LATE_POISON kills."""

from __future__ import annotations

import os
import signal
from typing import Any

from engine.admission import Job
from engine.api import Delta, GenerationRequest
from load_tests.chaos.engines import LATE, LATE_POISON, POISON
from load_tests.chaos.paced_engine import PacedEngine


class PoisonEngine(PacedEngine):
    """Kills its own process when a poisonous request is to get its first token, or the one after LATE tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokens_left: dict[str, int] = {}  # that poisonous requests get, by their ids

    def prepare(self, request: GenerationRequest) -> Job:
        for words, tokens in ((POISON, 0), (LATE_POISON, LATE)):
            if words in repr(request.prompt):
                self._tokens_left[request.request_id] = tokens - len(request.resume)
        return super().prepare(request)

    def step(self) -> list[Delta]:
        deltas = super().step()
        for delta in deltas:
            if (left := self._tokens_left.get(delta.request_id)) is not None:
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                self._tokens_left[delta.request_id] = left - len(delta.token_ids)
        return deltas
