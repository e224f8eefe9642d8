"""The engine (vLLM's ``EngineCore`` and ``LLM`` in one). Each step schedules, runs the model, samples and emits deltas,
on the caller's thread.

An error inside one sequence ends its request with an ERROR delta and frees its KV blocks; the engine continues. If a
forward pass fails, each of its sequences is run alone, and those that fail again end. If the scheduler fails, all
requests end with an ERROR delta, and the engine continues with a new scheduler and an empty KV cache. If the device or
another rank has failed, the engine has ended, and no request is at fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from engine.admission import MAX_FORCED_TOKENS, Admission, Job
from engine.api import (
    Delta,
    EngineError,
    EngineLoad,
    EngineStats,
    GenerationRequest,
    Grammar,
    ModelInfo,
    OverloadedError,
    Priority,
    SamplingParams,
    StepFacts,
)
from engine.backend import StepRunner, make_runner, uses_triton
from engine.completion import Completion
from engine.config import EngineConfig
from engine.counters import Counters
from engine.draft_model import Drafter
from engine.forward import FailedDraftError, Forward, Outcome
from engine.garbage_collection import freeze_gc, gc_paused
from engine.kv.cache import KVCache
from engine.kv.format import format_of
from engine.kv.pool import KVIntegrityError
from engine.kv.shape import context_of, shapes_of
from engine.load import oldest, waits
from engine.loaded_model import loaded_model
from engine.log_failure import log_failure
from engine.metrics import EngineMetrics, Phase, Recorder
from engine.model.decoder import Decoder
from engine.offline import OfflinePrompt, generate
from engine.output_processor import OutputProcessor
from engine.parallel.crew import Crew
from engine.parallel.launch import Launcher, Subprocesses
from engine.parallel.runner import ParallelRunner
from engine.report import EngineReport
from engine.scheduler.limits import Limits
from engine.scheduler.queue_limit import QueueState, check_room
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Chunk, Load, Plan
from engine.sequence import Status
from engine.speculative_decoding import SpeculativeDecoding
from engine.step_speed import StepSpeed
from engine.token_id_tokenizer import TokenIds
from engine.tokenizer import Tokenizer


class Engine:
    """An inference engine with continuous batching for one model. Only ``prepare``, ``knows_grammar`` and
    ``check_health`` may be called from other threads; AsyncEngine makes the rest available to them.

    ``clock`` returns monotonic seconds, by which requests age and expire and steps are measured. ``crew`` are the
    processes of the other ranks if ``model`` is one shard of several (tensor parallelism).
    """

    def __init__(
        self,
        config: EngineConfig,
        model: Decoder[Any],
        tokenizer: Tokenizer | TokenIds,
        clock: Callable[[], float] = time.monotonic,
        crew: Crew | None = None,
        objectives_s: Sequence[float] = (),
    ) -> None:
        self.config = config
        self._objectives_s = objectives_s
        self._crew = crew
        self._shapes = shapes_of(model.spec, config)
        context = context_of(model.spec, config, self._shapes)
        name = config.name or Path(config.model).name
        self.model_info = ModelInfo(name, context, model.spec.vocab_size)
        self._clock = clock
        self.last_step = StepFacts()
        self.speed = StepSpeed()
        ahead = int(uses_triton(config))  # that runner launches the next step before this step's tokens are known
        self._admission = Admission.of(config, tokenizer, model.spec.vocab_size, context, ahead)
        self._new_scheduler()
        runner = make_runner(model, config, self._shapes, context)
        self._runner: StepRunner = runner if crew is None else ParallelRunner(runner, crew)
        self._drafter = Drafter.of(config, model.spec, self._shapes, context)
        self._new_counts()

    @classmethod
    def from_pretrained(cls, path: str | Path, **config: Any) -> Self:
        """Loads the Hugging Face directory or the GGUF file ``path`` and returns its engine. Keywords are fields of
        EngineConfig.

        Raises OSError for missing files, KeyError for a tensor or a key of config.json that is missing, ValueError for
        settings out of range or a KV cache larger than the available memory, UnsupportedModelError for a model that is
        not supported, and EngineDeadError if another rank (``tensor_parallel``) does not start.
        """
        return cls.from_config(EngineConfig(model=str(path), **config))

    @classmethod
    @gc_paused()
    def from_config(
        cls, config: EngineConfig, launcher: Launcher | None = None, objectives_s: Sequence[float] = ()
    ) -> Self:
        """Loads the model that ``config`` names and returns its engine. Also sets torch's number of threads, if
        ``config.threads`` says so, and excludes all objects alive from garbage collection. ``launcher`` starts the
        processes of the other ranks, by default as child processes of this one. ``objectives_s`` are as in
        ``Recorder``. Raises the errors of ``from_pretrained``, and ModelDigestError if a model file has
        another digest than ``config`` says."""
        with loaded_model(config, launcher or Subprocesses()) as model:
            engine = cls(config, model.decoder, model.tokenizer, crew=model.crew, objectives_s=objectives_s)
        freeze_gc()
        return engine

    @property
    def cache_tokens(self) -> int:
        """The tokens that the largest group of the KV cache holds. Groups of layers with windows hold fewer, but as
        many sequences as may run."""
        return self._cache.largest.total * self._cache.block_size

    @property
    def has_work(self) -> bool:
        """Whether there are requests in progress, waiting or running."""
        return len(self._output_processor) > 0

    def knows_grammar(self, grammar: Grammar) -> bool:
        """Returns whether a grammar has been compiled or refused before. May be called from any thread."""
        return self._admission.grammars.knows(grammar)

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenises and checks a request, whose arrival time is now. Returns its first job, for ``enqueue``. May be
        called from any thread. Raises RequestError, or OverloadedError if its grammar cannot be compiled at the moment.
        """
        job = self._admission.prepare(request, self._clock())
        self._cache.hash_prompt(job.sequence)  # on the caller's thread, so that no step waits for it
        return job

    def add(self, request: GenerationRequest) -> None:
        """Checks a request and queues it. Raises RequestError, also for a request id in use; and OverloadedError if the
        waiting queue is full or the grammar cannot be compiled at the moment."""
        try:
            check_room(request.tenant, self.queue_state(), {}, self.config.max_waiting)
        except OverloadedError:
            self.recorder.refuse(request.tenant, request.priority, continues=request.continues)
            raise
        self.enqueue(self.prepare(request))

    def enqueue(self, job: Job) -> None:
        """Queues a prepared request without checking whether the queue is full. Raises RequestError for a request id in
        use."""
        self._output_processor.begin(job)
        if not job.continues:
            self.recorder.arrived(job.sequence.priority, self.uncached * job.sequence.prompt_length)

    def abort(self, request_ids: Iterable[str]) -> list[Delta]:
        """Ends requests at once; their KV blocks are free on return. Returns a last delta for each: ABORT with its
        token counts. Ignores unknown ids, because a request may have ended in the meantime."""
        ended = [self._output_processor.abort(request_id) for request_id in request_ids]
        return [delta for delta in ended if delta is not None]

    def step(self) -> list[Delta]:
        """Runs one step: a forward pass over the sequences that the scheduler picks, if it picks any. Returns a delta
        for each choice that got tokens or ended, and one for each request that failed or expired. A beam search gives
        deltas only at its end.

        Failures of the scheduler, the model and sampling are not raised. If a batch fails, its chunks are run one by
        one, and a request that fails alone ends with ERROR, or REFUSED if it cannot be satisfied. If the scheduler
        fails, every request ends with ERROR.

        Raises EngineDeadError if no step can be computed any more, because the device or another rank has failed. The
        requests have no deltas then: they are not at fault, and another engine can continue them.
        """
        began = self._clock()
        deltas = self._output_processor.take_ended()
        try:
            plan = self._plan(began)
        except Exception as error:  # noqa: BLE001 - a bug of the scheduler; the engine continues with a new one
            log_failure("the scheduler", error)
            self._runner.check_health()  # blocks may have been copied
            return [*deltas, *self._fail_all(error)]
        for sequence in plan.admitted:
            if not sequence.choice:
                self.recorder.admitted(sequence)
        deltas += self._drop(plan)
        self.recorder.phase(Phase.SCHEDULE, self._clock() - began)
        chunks = [chunk for chunk in plan.chunks if chunk.sequence.status is Status.RUNNING]  # others failed
        if chunks:
            chunks, emitted = self._compute(chunks)
            deltas += emitted
            self._took(chunks, plan.load, began, sum(len(delta.token_ids) for delta in deltas))
        return deltas

    def queue_state(self) -> QueueState:
        """Returns the lengths of the waiting queue, by which ``check_room`` decides whether it takes one more
        request."""
        return self._scheduler.queue_state()

    def metrics(self) -> EngineMetrics:
        """Returns the metrics of the engine: counts since the start and current gauges."""
        return self.recorder.snapshot(
            self.stats(), self.queue_state().by_line, waits(self.waiting_since(), self._clock())
        )

    def now(self) -> float:
        """Returns the present instant of the engine's clock, in seconds."""
        return self._clock()

    def waiting_since(self) -> dict[Priority, float]:
        """Returns, for each class with waiting requests, the instant since which the oldest of them waits. Looks at
        every waiting sequence, so it is too slow for every step."""
        return oldest(self._scheduler.waiting)

    def stats(self) -> EngineStats:
        """Returns counters since the start and current gauges. Block numbers are those of the fullest block pool."""
        return self._report().stats()

    def load(self) -> EngineLoad:
        """Returns the engine's present work and speed. Looks at every sequence, so it is too slow for every step."""
        return self._report().load(self._clock())

    @property
    def uncached(self) -> float:
        """The share of prompt tokens that the prefix cache did not have, up to now."""
        return self._report().uncached

    def check_health(self) -> None:
        """Raises EngineDeadError if the process of another rank has died, failed or hung, because no step can be
        computed then. May be called from any thread."""
        if self._crew is not None:
            self._crew.check_health()

    def close(self) -> None:
        """Ends the processes of the other ranks and the one that tries out grammars, if there are any. Otherwise they
        end with this process. May be called again."""
        self._admission.grammars.close()
        if self._crew is not None:
            self._crew.close()

    def check_integrity(self) -> None:
        """Raises KVIntegrityError if the bookkeeping of the KV cache is inconsistent."""
        self._cache.check_integrity()

    def repair(self) -> None:
        """Checks the bookkeeping of the KV cache while no request is in progress. If it is inconsistent, replaces
        scheduler and KV cache, which loses only the prefix cache."""
        try:
            self.check_integrity()
            if self._cache.used:
                raise KVIntegrityError(f"{self._cache.used} blocks are in use, but no request is in progress")
        except KVIntegrityError as error:
            log_failure("the KV cache's books", error)
            self.recorder.repairs += 1
            self._reset_scheduler()

    def generate(
        self,
        prompts: Sequence[OfflinePrompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """Runs all prompts to their end and returns their completions in the order of the prompts, ``n`` of each
        (vLLM's ``LLM.generate``). A prompt that failed has one completion. ``params`` is one for all prompts or one for
        each; None: the defaults of SamplingParams. Requests run in the class BATCH, so that prefill may use the whole
        token budget of a step.

        Raises RequestError or OverloadedError before anything is run, EngineError if other requests are in progress,
        and EngineDeadError as ``step`` does.
        """
        return generate(self, prompts, params)

    def reset_counts(self) -> None:
        """Forgets counts, metrics and cached prefixes, as if nothing had been computed. Raises EngineError if requests
        are in progress."""
        if self.has_work:
            raise EngineError("counts are not reset while requests are under way")
        self._new_scheduler()
        self._new_counts()

    def _report(self) -> EngineReport:
        return EngineReport(
            self.config,
            self._cache,
            self._scheduler,
            self._counters,
            self.recorder,
            self._speculation.speculator,
            self.speed,
        )

    def _new_counts(self) -> None:
        """Creates counters, metrics and the processor of outputs, as those of an engine that has computed nothing."""
        config = self.config
        self._counters = Counters()
        self.recorder = Recorder(config.tenant_weights, objectives_s=self._objectives_s)
        self.recorder.kernels = self._runner.kernels
        most_forced = min(config.prefill_chunk - 1, MAX_FORCED_TOKENS)
        self._output_processor = OutputProcessor(
            self._admission, self._scheduler, self._counters, self.recorder, self._clock, most_forced
        )
        self._speculation = SpeculativeDecoding.of(config, self._drafter, self.recorder, self._clock)
        score_prompt = self._output_processor.score_prompt
        self._forward = Forward(self._runner, self.recorder, self._clock, self._computed, score_prompt)

    def _new_scheduler(self) -> None:
        """Creates an empty KV cache and a scheduler for it."""
        config = self.config
        form = format_of(config.kv_dtype, getattr(torch, config.dtype))
        version = f"{self.model_info.name} {config.dtype} {config.weight_dtype} {form.name}"
        self._cache = KVCache(self._shapes, config.prefix_caching, version)
        self._scheduler = Scheduler(self._cache, Limits.of(config))

    def _plan(self, now: float) -> Plan:
        """Plans the next step, and copies the blocks that it needs."""
        self._output_processor.park_stranded()
        self._speculation.propose(self._scheduler.running)
        plan = self._scheduler.schedule(now)
        if plan.copies:
            self._runner.copy(plan.copies)
            self._speculation.copy(plan.copies)
        return plan

    def _drop(self, plan: Plan) -> Iterator[Delta]:
        """Ends the requests that have expired or failed while they waited. Yields the last delta of each."""
        for sequence in plan.expired:
            yield self._output_processor.expire(sequence.request_id)
        for sequence, fault in plan.failed:
            if sequence.request_id in self._output_processor:  # not if another choice of the request has failed before
                yield self._output_processor.fail(sequence.request_id, fault)

    def _compute(self, chunks: list[Chunk]) -> tuple[list[Chunk], list[Delta]]:
        """Runs the model over ``chunks`` and samples. Returns the chunks as they were computed, and the deltas."""
        chunks = self._speculation.fill(chunks)
        sampled = self._forward.compute(chunks)
        self._scrub(sampled)
        self._counters.count(chunks)
        computed = self._clock()
        emitted = [chunk.sequence for chunk, outcome in sampled if isinstance(outcome, list)]
        self.recorder.tokens_emitted(emitted, computed)
        deltas: list[Delta] = []
        for chunk, outcome in sampled:
            deltas += self._output_processor.emit(chunk.sequence, outcome)
        self.recorder.phase(Phase.EMIT, self._clock() - computed)
        return chunks, deltas

    def _took(self, chunks: list[Chunk], load: Load, began: float, tokens: int) -> None:
        """Records that a step over ``chunks``, with this ``load``, which ``began`` at that instant and ends now,
        generated ``tokens`` tokens."""
        ended = self._clock()
        seconds = ended - began
        self.recorder.step(len(chunks), seconds)
        self.last_step = StepFacts(self._counters.steps, len(chunks), load.long + load.short, seconds)
        self._scheduler.took(load, seconds)
        self.speed.observe(load, seconds, ended)
        self._speculation.took(chunks, tokens, seconds)

    def _fail_all(self, error: Exception) -> list[Delta]:
        """Ends every request with an ERROR delta, and replaces scheduler and KV cache, whose state may be
        inconsistent."""
        names = self._output_processor.drop_all()
        self._reset_scheduler()
        return [self._output_processor.fail(request_id, error) for request_id in names]

    def _reset_scheduler(self) -> None:
        """Replaces scheduler and KV cache by empty ones; their counts go into the engine's counters."""
        self._counters.preemptions += self._scheduler.preemptions
        self._counters.cached_tokens += self._scheduler.cached_tokens
        self._new_scheduler()
        self._output_processor.scheduler = self._scheduler

    def _computed(self, chunk: Chunk, proposed: int) -> None:
        """Records a chunk that was computed successfully. ``proposed`` draft tokens were verified in it; it is cut to
        the accepted ones."""
        accepted = chunk.length - 1 if proposed else 0  # a chunk with draft tokens has one token before them
        self._scheduler.computed(chunk, accepted)
        if proposed:
            self._speculation.speculator.learn(chunk.sequence, proposed, accepted)

    def _scrub(self, outcomes: Iterable[Outcome]) -> None:
        """Zeroes the KV blocks owned only by sequences whose forward pass produced NaN or Inf, so that block reuse
        cannot spread them. Must run for all faulty sequences before any request ends, because ending a request frees
        the blocks of all its choices."""
        faults = FloatingPointError | FailedDraftError
        for chunk, outcome in outcomes:
            if isinstance(outcome, faults):
                blocks = self._cache.disown(chunk.sequence)
                self._runner.scrub(blocks)
                self._speculation.scrub(blocks)
