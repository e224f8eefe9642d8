"""``EngineReport``: what an engine says of its own work and speed, for routers, metrics and autoscaling."""

from __future__ import annotations

from dataclasses import dataclass

from engine.api import EngineLoad, EngineStats
from engine.config import EngineConfig
from engine.counters import Counters
from engine.kv.cache import KVCache
from engine.load import demand, due_work
from engine.metrics import Recorder
from engine.scheduler.scheduler import Scheduler
from engine.speculation import Speculator
from engine.step_speed import StepSpeed


@dataclass(frozen=True, slots=True)
class EngineReport:
    """The parts of an engine that know something of its work, as they are at this moment."""

    config: EngineConfig
    cache: KVCache
    scheduler: Scheduler
    counters: Counters
    recorder: Recorder
    speculator: Speculator
    speed: StepSpeed

    @property
    def uncached(self) -> float:
        """The share of prompt tokens that the prefix cache did not have, up to now."""
        computed = self.counters.prompt_tokens
        cached = self.counters.cached_tokens + self.scheduler.cached_tokens
        return computed / (computed + cached) if computed else 1.0

    def stats(self) -> EngineStats:
        """Returns counters since the start and current gauges. Block numbers are those of the fullest block pool."""
        pool, counters = self.cache.tightest, self.counters
        queued_short, queued_long = self.scheduler.queued_tokens()
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            blocks_total=pool.total,
            blocks_used=pool.used,
            blocks_cached=pool.cached,
            steps=counters.steps,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens + self.scheduler.cached_tokens,
            generated_tokens=counters.generated_tokens,
            finished=counters.finished,
            aborted=counters.aborted,
            failed=counters.failed,
            expired=counters.expired,
            preemptions=counters.preemptions + self.scheduler.preemptions,
            wait_s=self.scheduler.wait_s(),
            guessed_tokens=self.speculator.proposed,
            right_guesses=self.speculator.accepted,
            decoding=self.scheduler.decoding,
            queued_short=queued_short,
            queued_long=queued_long,
            long_prompts=self.scheduler.long_prompts,
        )

    def load(self, now: float) -> EngineLoad:
        """Returns the engine's work and speed at the instant ``now`` of its clock. Looks at every sequence."""
        running, waiting = self.scheduler.running, self.scheduler.waiting
        needs, times = demand(running, waiting, self.uncached, self.recorder.mean_output), self.speed.times
        pool, block, cost = self.cache.largest, self.cache.block_size, self.speed.cost.solve()
        long_alone, long_beside_decodes = self.scheduler.long_prompt_tokens()
        return EngineLoad(
            running=len(running),
            waiting=len(waiting),
            queued_prompt_tokens=needs.queued_prompt_tokens,
            kv_used_tokens=block * pool.used,
            kv_demand_tokens=needs.kv_demand_tokens,
            kv_capacity_tokens=block * pool.total,
            prefill_tokens_per_s=times.prefill_tokens_per_s,
            decode_step_s=times.decode_step_s,
            decode_batch=times.decode_batch,
            chunk_tokens=times.chunk_tokens,
            batch_prompt_tokens=needs.batch_prompt_tokens,
            batch_sequences=needs.batch_sequences,
            batch_kv_tokens=needs.batch_kv_tokens,
            batch_due=due_work(running, waiting, self.uncached, self.recorder.mean_output, now),
            step_s=cost.step_s,
            prompt_token_s=cost.prompt_token_s,
            sequence_s=cost.sequence_s,
            free_prompt_tokens=cost.free_prompt_tokens,
            step_tokens=self.config.max_batch_tokens,
            long_step_tokens=long_alone,
            long_beside_decodes=long_beside_decodes,
            long_at_once=self.scheduler.long_at_once,
            prefill_chunk=self.config.prefill_chunk,
            max_sequences=self.config.max_sequences,
            output_tokens=self.recorder.mean_output or 0.0,
            classes=self.recorder.class_loads(),
            itl=self.recorder.itl,
            itl_s=self.recorder.itl_s,
        )
