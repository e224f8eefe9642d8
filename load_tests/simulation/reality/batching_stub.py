"""``BatchingStub``: a stub engine that takes the time of a ``ReplicaProfile``: chunks of prompts, steps of a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cluster.config import TierConfig
from cluster.replica.tier_replica import OnStep, ReplicaEngine
from engine.api import ClassLoad, Delta, EngineLoad, EngineStats, GenerationRequest, Priority
from load_tests.overhead.stub import StubEngine
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.reality.local_profile import LOCAL


class BatchingStub(StubEngine):
    """Has the speed of ``profile``. The oldest requests run, up to ``max_sequences``. A step has up to a chunk of the
    oldest prompts, and a token of each request whose prompt is done."""

    def __init__(self, on_step: OnStep, profile: ReplicaProfile = LOCAL) -> None:
        super().__init__(on_step, profile.step_s)
        self._profile = profile
        self._uncomputed: dict[str, int] = {}  # prompt tokens that are left, under the lock
        self._arrivals = 0

    def submit(self, request: GenerationRequest) -> None:
        super().submit(request)
        with self._changed:
            self._arrivals += 1
            self._uncomputed[request.request_id] = self._live[request.request_id].prompt_tokens

    def stats(self) -> EngineStats:
        """The oldest requests run, the others wait."""
        with self._changed:
            count, done = len(self._live), self._counters
            running = min(count, self._profile.max_sequences)
            return EngineStats(
                running=running,
                waiting=count - running,
                blocks_total=self._profile.kv_tokens,
                blocks_used=sum(each.prompt_tokens + each.sent for each in list(self._live.values())[:running]),
                blocks_cached=0,
                steps=done.steps,
                prompt_tokens=done.prompt_tokens,
                cached_tokens=0,
                generated_tokens=done.generated,
                finished=done.finished,
                aborted=done.aborted,
                failed=0,
                decoding=sum(not self._uncomputed.get(name) for name in list(self._live)[:running]),
                queued_short=(0, sum(self._uncomputed.get(name, 0) for name in self._live), 0),
                queued_long=(0, 0, 0),
            )

    def load(self) -> EngineLoad:
        profile = self._profile
        with self._changed:
            live, done = list(self._live.values()), self._counters
            running = min(len(live), profile.max_sequences)
            output = done.generated / done.finished if done.finished else 50.0
            decoding = sum(not self._uncomputed.get(name) for name in list(self._live)[:running])
            known = 1.0 if done.steps else 0.0
            return EngineLoad(
                running=running,
                waiting=len(live) - running,
                queued_prompt_tokens=sum(self._uncomputed.get(name, 0) for name in self._live),
                kv_used_tokens=sum(each.prompt_tokens + each.sent for each in live[:running]),
                kv_demand_tokens=sum(each.prompt_tokens for each in live) + len(live) * output,
                kv_capacity_tokens=profile.kv_tokens,
                prefill_tokens_per_s=known * profile.prefill_tokens_s,
                decode_step_s=profile.decode_step_s(decoding, 0) if decoding else 0.0,
                decode_batch=decoding,
                chunk_tokens=profile.chunk_tokens,
                step_s=profile.step_s,
                prompt_token_s=(profile.chunk_s - profile.step_s) / profile.chunk_tokens,
                sequence_s=profile.sequence_s,
                step_tokens=2 * profile.chunk_tokens + decoding,
                prefill_chunk=profile.chunk_tokens,
                max_sequences=profile.max_sequences,
                output_tokens=output,
                classes={
                    Priority.STANDARD: ClassLoad(self._arrivals, 0, done.prompt_tokens, done.finished, done.generated)
                },
            )

    def _run(self) -> None:
        while self._await_work():
            began = time.monotonic()
            decoding, computed, tokens = self._plan()
            profile = self._profile
            step_s = profile.chunk_s * tokens / profile.chunk_tokens if tokens else 0.0
            step_s = max(profile.step_s, step_s) + profile.sequence_s * len(decoding)
            time.sleep(max(0.0, began + step_s - time.monotonic()))
            if deltas := self._end_step([*decoding, *computed]):
                self._on_step(deltas)

    def _plan(self) -> tuple[list[str], list[str], int]:
        """Returns the requests that decode in this step, those whose prompts it completes, and its prompt tokens."""
        with self._changed:
            names = list(self._live)[: self._profile.max_sequences]
            decoding = [name for name in names if not self._uncomputed.get(name)]
            computed: list[str] = []
            room = self._profile.chunk_tokens
            for name in names:
                left = self._uncomputed.get(name, 0)
                if left and room:
                    done = min(left, room)
                    room -= done
                    self._uncomputed[name] = left - done
                    if left == done:
                        computed.append(name)
            return decoding, computed, self._profile.chunk_tokens - room

    def _end_step(self, names: list[str]) -> list[Delta]:
        with self._changed:
            self._counters.steps += 1
            present = [(name, self._live[name]) for name in names if name in self._live]
            self._counters.generated += len(present)
            deltas = [self._advance(name, stream) for name, stream in present]
            self._uncomputed = {name: left for name, left in self._uncomputed.items() if name in self._live}
            return deltas


@dataclass(frozen=True, slots=True)
class BatchingFactory:
    """An engine factory for ``cluster.app.build_with``."""

    profile: ReplicaProfile = LOCAL

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        return BatchingStub(on_step, self.profile)
