"""A stub engine that gets busy: it answers ``SLOTS`` requests at a time, and the others wait."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from cluster.config import TierConfig
from cluster.replica.tier_replica import OnStep, ReplicaEngine
from engine.api import ClassLoad, Delta, EngineLoad, GenerationRequest, Priority
from load_tests.overhead.stub import StubEngine

SLOTS = 8  # requests at a time
STEP_S = 0.02  # of one token for each of them
EXPECTED = 50  # tokens of an answer, for the estimate of the KV cache that will be needed


class QueueingEngine(StubEngine):
    """Its KV cache has room for ``SLOTS`` answers of ``EXPECTED`` tokens. Each token says which process made it."""

    def __init__(self, on_step: OnStep) -> None:
        super().__init__(on_step, STEP_S)
        self._arrivals = 0
        self._prompts = 0

    def submit(self, request: GenerationRequest) -> None:
        super().submit(request)
        with self._changed:
            self._arrivals += 1
            self._prompts = self._counters.prompt_tokens

    def load(self) -> EngineLoad:
        """What there is to do. Prompts cost nothing."""
        with self._changed:
            streams, done = list(self._live.values()), self._counters
            running = streams[:SLOTS]
            per_request = EXPECTED + self._prompts / max(1, self._arrivals)
            return EngineLoad(
                running=len(running),
                waiting=len(streams) - len(running),
                kv_used_tokens=sum(each.prompt_tokens + each.sent for each in running),
                kv_demand_tokens=len(streams) * per_request,
                kv_capacity_tokens=SLOTS * per_request,
                decode_step_s=STEP_S if done.steps else 0.0,
                decode_batch=SLOTS / 2 if done.steps else 0.0,
                classes={Priority.STANDARD: ClassLoad(self._arrivals, 0, self._prompts, done.finished, done.generated)},
            )

    def _step(self) -> list[Delta]:
        with self._changed:
            self._counters.steps += 1
            running = list(self._live.items())[:SLOTS]
            self._counters.generated += len(running)
            deltas = [self._advance(request_id, stream) for request_id, stream in running]
        return [replace(each, text=f"{each.text}@{os.getpid()}") for each in deltas]


@dataclass(frozen=True, slots=True)
class QueueingFactory:
    """An engine factory for ``cluster.app.build_with``. Its engines take ``load_s`` seconds to load."""

    load_s: float = 0.0

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        time.sleep(self.load_s)
        return QueueingEngine(on_step)
