"""The engine: schedule → run → sample → emit, one step at a time, on the caller's thread.

A failure inside one sequence ends that sequence with an ERROR delta, its blocks are free again, and the engine goes on.
When a forward pass fails, each of its sequences is tried alone, and only those that fail again end. When the scheduler
itself fails, nobody can say whose fault it was: all end, and the engine goes on with new books.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from engine.admission import MAX_FORCED_TOKENS, Admission, Job
from engine.answers import Answers
from engine.api import (
    Conversation,
    Delta,
    EngineError,
    EngineStats,
    GenerationRequest,
    Grammar,
    ModelInfo,
    OverloadedError,
    Priority,
    RequestError,
    SamplingParams,
)
from engine.backend import StepRunner, load_model, make_runner, uses_triton
from engine.completion import Completion, completions
from engine.config import EngineConfig
from engine.counters import Counters
from engine.draft import Drafter
from engine.failures import log_failure
from engine.forward import Forward, Outcome, SpoiltGuessError
from engine.kv.cache import KVCache
from engine.kv.format import format_of
from engine.kv.pool import KVIntegrityError
from engine.kv.shape import context_of, shapes_of
from engine.memory import settle
from engine.metrics import EngineMetrics, Phase, Recorder
from engine.model.decoder import Decoder
from engine.model.location import check_digest, locate
from engine.model.source import open_model
from engine.parallel.crew import Crew
from engine.parallel.launch import Launcher, Subprocesses
from engine.parallel.runner import ParallelRunner
from engine.parallel.share import Share
from engine.scheduler.door import QueueState, check_room
from engine.scheduler.limits import Limits
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Chunk
from engine.sequence import Status
from engine.speculation import Speculator
from engine.token_ids import TokenIds, load_tokenizer
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class Engine:
    """Continuous batching over one model. Not thread-safe, but for ``prepare``; AsyncEngine puts it on a thread.

    ``clock`` tells the seconds by which requests age and expire and steps are measured; it never goes back. ``crew``
    has the other ranks where ``model`` is one of several shares.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: Decoder[Any],
        tokenizer: Tokenizer | TokenIds,
        clock: Callable[[], float] = time.monotonic,
        crew: Crew | None = None,
    ) -> None:
        self.config = config
        self._crew = crew
        self._shapes = shapes_of(model.spec, config)
        context = context_of(model.spec, config, self._shapes)
        name = config.name or Path(config.model).name
        self.model_info = ModelInfo(name, context, model.spec.vocab_size)
        self._clock = clock
        vocab_size = model.spec.vocab_size
        grammars = tokenizer.grammars(vocab_size)
        grammars.load()
        guesses = config.speculative_tokens > 0
        ahead = int(uses_triton(config))  # its runner launches the next step before this one's tokens are known
        self._admission = Admission(tokenizer, vocab_size, context, config.reserve_answers, grammars, guesses, ahead)
        self._open_books()
        runner = make_runner(model, config, self._shapes, context)
        self._runner: StepRunner = runner if crew is None else ParallelRunner(runner, crew)
        self._counters = Counters()
        self.recorder = Recorder(config.tenant_weights)
        most_forced = min(config.prefill_chunk - 1, MAX_FORCED_TOKENS)
        self._answers = Answers(self._admission, self._scheduler, self._counters, self.recorder, clock, most_forced)
        self._drafter = Drafter.of(config, model.spec, self._shapes, context)
        guesses_most = min(config.speculative_tokens, config.prefill_chunk - 1)
        self._speculator = Speculator(guesses_most, config.speculative_rows, self._drafter is not None)
        self._forward = Forward(self._runner, self.recorder, clock, self._computed, self._answers.score_prompt)

    @classmethod
    def from_pretrained(cls, path: str | Path, **config: Any) -> Self:
        """Loads a Hugging Face directory or a GGUF file; keywords are fields of EngineConfig.

        Raises OSError for missing files, ValueError for settings out of range or a KV cache larger than the memory that
        is left, UnsupportedModelError for a model that is not supported.
        """
        return cls.from_config(EngineConfig(model=str(path), **config))

    @classmethod
    def from_config(cls, config: EngineConfig, launcher: Launcher | None = None) -> Self:
        """Loads what ``config.model`` points to. ``launcher`` starts the processes of the other ranks, if the config
        asks for any: by default as children of this one. Raises as ``from_pretrained`` does, and EngineDeadError if
        they do not come up."""
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if config.model_sha256 is not None:
            check_digest(locate(config.model), config.model_sha256)
        tokenizer = load_tokenizer(locate(config.model))
        if config.draft_model is not None:
            smaller = load_tokenizer(locate(config.draft_model))
            if smaller.vocabulary != tokenizer.vocabulary:
                raise ValueError("draft_model has other tokens than the model")
        if config.tensor_parallel == 1:
            engine = cls(config, load_model(config), tokenizer)
        else:
            engine = cls._over_ranks(config, tokenizer, launcher or Subprocesses())
        settle()
        return engine

    @classmethod
    def _over_ranks(cls, config: EngineConfig, tokenizer: Tokenizer | TokenIds, launcher: Launcher) -> Self:
        # What cannot be split is refused before anything is started.
        Share(0, config.tensor_parallel).spec(open_model(locate(config.model)).spec)
        crew = Crew.start(config, launcher)
        try:
            engine = cls(config, load_model(config, crew.exchange), tokenizer, crew=crew)
            crew.await_ready()
        except BaseException:
            crew.close()
            raise
        return engine

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        return len(self._answers) > 0

    def knows_grammar(self, grammar: Grammar) -> bool:
        """Whether a grammar has been compiled or refused before. From any thread."""
        return self._admission.grammars.knows(grammar)

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenises and checks a request, which arrives now; from any thread. Raises RequestError."""
        return self._admission.prepare(request, self._clock())

    def add(self, request: GenerationRequest) -> None:
        """Queues a request. Raises RequestError, or OverloadedError when the queue is full."""
        try:
            check_room(request.tenant, self.queue_state(), {}, self.config.max_waiting)
        except OverloadedError:
            self.recorder.refuse(request.tenant)
            raise
        self.enqueue(self.prepare(request))

    def enqueue(self, job: Job) -> None:
        """Queues a prepared request, however full the queue is. Raises RequestError for an id that is in use."""
        self._answers.begin(job)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Ends requests at once, without a delta; their blocks are free on return. Unknown ids are ignored: a request
        may have ended while its abort was on the way."""
        for request_id in request_ids:
            self._answers.abort(request_id)

    def step(self) -> list[Delta]:
        """One forward pass for the sequences that the scheduler picks; a delta for each that got a token or ended."""
        began = self._clock()
        try:
            self._answers.make_way()
            self._speculator.guess(self._scheduler.running)
            plan = self._scheduler.schedule(began)
            if plan.copies:
                self._runner.copy(plan.copies)
                if self._drafter is not None:
                    self._drafter.copy(plan.copies)
        except Exception as error:  # noqa: BLE001 - a bug of ours; the engine outlives it
            log_failure("the scheduler", error)
            return self._start_afresh(error)
        for sequence in plan.started:
            if not sequence.choice:
                self.recorder.started(sequence)
        deltas = [self._answers.expire(sequence.request_id) for sequence in plan.expired]
        for sequence, fault in plan.failed:
            if sequence.request_id in self._answers:  # else another of its choices has failed as well
                deltas.append(self._answers.fail(sequence.request_id, fault))
        self.recorder.phase(Phase.SCHEDULE, self._clock() - began)
        chunks = [chunk for chunk in plan.chunks if chunk.sequence.status is Status.RUNNING]  # not ended by a failure
        if chunks:
            drafting = any(chunk.sequence.drafting for chunk in chunks)
            chunks = self._drafted(chunks) if drafting else chunks
            sampled = self._forward.compute(chunks)
            self._scrub(sampled)
            self._counters.count(chunks)
            computed = self._clock()
            told = [chunk.sequence for chunk, outcome in sampled if isinstance(outcome, list)]
            self.recorder.told(told, computed)
            for chunk, outcome in sampled:
                deltas += self._answers.emit(chunk.sequence, outcome)
            ended = self._clock()
            self.recorder.phase(Phase.EMIT, ended - computed)
            self._scheduler.took(plan.load, ended - began)
            if drafting == any(chunk.sequence.drafting for chunk in chunks):  # else it only read what it had missed
                self._speculator.took(chunks, sum(len(delta.token_ids) for delta in deltas), ended - began)
            self._speculator.forget(chunks)
        return deltas

    def queue_state(self) -> QueueState:
        """The waiting requests, for those who decide whether there is room for one more."""
        return self._scheduler.queue_state()

    def metrics(self) -> EngineMetrics:
        """All that was recorded up to now."""
        return self.recorder.snapshot(self.stats(), self.queue_state().by_line)

    def stats(self) -> EngineStats:
        """Counters since the start and gauges of now."""
        pool, counters = self._cache.tightest, self._counters
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            blocks_total=pool.total,
            blocks_used=pool.used,
            blocks_cached=pool.cached,
            steps=counters.steps,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens + self._scheduler.cached_tokens,
            generated_tokens=counters.generated_tokens,
            finished=counters.finished,
            aborted=counters.aborted,
            failed=counters.failed,
            expired=counters.expired,
            preemptions=counters.preemptions + self._scheduler.preemptions,
            wait_s=self._scheduler.wait_s(),
            guessed_tokens=self._speculator.guessed,
            right_guesses=self._speculator.right,
        )

    def check_health(self) -> None:
        """From any thread. Raises EngineDeadError once a process of another rank has died, failed or hung: nothing can
        be computed any more."""
        if self._crew is not None:
            self._crew.check_health()

    def close(self) -> None:
        """Ends the processes of other ranks and the one that tries grammars, if there are any; without it they end with
        this process. May be called again."""
        self._admission.grammars.close()
        if self._crew is not None:
            self._crew.close()

    def check_integrity(self) -> None:
        """Raises KVIntegrityError if the books of the KV cache do not balance."""
        self._cache.check_integrity()

    def repair(self) -> None:
        """For an idle engine: checks the books of the KV cache and, should they not balance, opens new ones. That loses
        the prefix cache and nothing else, since nobody holds a block."""
        try:
            self.check_integrity()
            if self._cache.used:
                raise KVIntegrityError(f"{self._cache.used} blocks are used by nobody")
        except KVIntegrityError as error:
            log_failure("the KV cache's books", error)
            self.recorder.repairs += 1
            self._renew_books()

    def generate(
        self,
        prompts: Sequence[str | Sequence[int] | Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """Completions of all prompts, in their order, ``n`` of each. ``params`` is one for all or one for each. They
        run as a batch: nobody watches single tokens, so prompts take all that a step has room for.

        Raises RequestError before anything is run, and EngineError when other requests are under way.
        """
        if self.has_work:
            raise EngineError("generate needs the engine for itself; requests are under way")
        settings = params if isinstance(params, Sequence) else [params or SamplingParams()] * len(prompts)
        if len(settings) != len(prompts):
            raise RequestError(f"{len(prompts)} prompts but {len(settings)} sampling parameters", "params")
        given = [prompt if isinstance(prompt, str | Conversation) else tuple(prompt) for prompt in prompts]
        asked = zip(given, settings, strict=True)
        jobs = [
            self.prepare(GenerationRequest(str(i), *request, priority=Priority.BATCH))
            for i, request in enumerate(asked)
        ]
        for job in jobs:
            self.enqueue(job)
        deltas: dict[str, list[Delta]] = {job.sequence.request_id: [] for job in jobs}
        while self.has_work:
            for delta in self.step():
                deltas[delta.request_id].append(delta)
        asked_for = zip(deltas.values(), settings, strict=True)
        return [one for parts, each in asked_for for one in completions(parts, each)]

    def _open_books(self) -> None:
        """A KV cache that knows nothing, and a scheduler for it."""
        config = self.config
        form = format_of(config.kv_dtype, getattr(torch, config.dtype))
        version = f"{self.model_info.name} {config.dtype} {config.weight_dtype} {form.name}"
        self._cache = KVCache(self._shapes, config.prefix_caching, version)
        limits = Limits(
            batch_tokens=config.max_batch_tokens,
            prefill_chunk=config.prefill_chunk,
            sequences=config.max_sequences,
            partial_prefills=config.max_partial_prefills,
            decode_slowdown=config.max_decode_slowdown,
            ageing_s=config.ageing_s,
            prefix_bonus_s=config.prefix_bonus_s,
            cooldown=config.preemption_cooldown,
            weights=config.tenant_weights,
        )
        self._scheduler = Scheduler(self._cache, limits)

    def _start_afresh(self, error: Exception) -> list[Delta]:
        """Ends everything with an error. Old books are thrown away, since nobody knows what they are worth."""
        names = self._answers.forsake()
        self._renew_books()
        return [self._answers.fail(request_id, error) for request_id in names]

    def _renew_books(self) -> None:
        self._counters.preemptions += self._scheduler.preemptions
        self._counters.cached_tokens += self._scheduler.cached_tokens
        self._open_books()
        self._answers.scheduler = self._scheduler

    def _drafted(self, chunks: list[Chunk]) -> list[Chunk]:
        """With the guesses of a smaller model. Should that fail, there are none."""
        if self._drafter is None:
            return chunks
        began = self._clock()
        try:
            chunks = self._drafter.fill(chunks)
        except Exception as error:  # noqa: BLE001 - guesses are not needed
            log_failure("a draft", error)
            self._speculator.failed()
            chunks = self._drafter.without([chunk for chunk in chunks if chunk.sequence.drafting], chunks)
        self.recorder.phase(Phase.DRAFT, self._clock() - began)
        return chunks

    def _computed(self, chunk: Chunk, guessed: int) -> None:
        """A chunk stands, in which so many tokens were ``guessed``."""
        right = chunk.length - 1 if guessed else 0  # only one token was pending
        self._scheduler.computed(chunk, right)
        if guessed:
            self._speculator.learn(chunk.sequence, guessed, right)

    def _scrub(self, outcomes: Iterable[Outcome]) -> None:
        """Zeroes the KV blocks owned only by sequences whose forward pass produced NaN or Inf, so that block reuse
        cannot spread them. Must run for all faulty sequences before any request ends, because ending a request frees
        the blocks of all its choices."""
        for chunk, outcome in outcomes:
            if isinstance(outcome, FloatingPointError | SpoiltGuessError):
                blocks = self._cache.disown(chunk.sequence)
                self._runner.scrub(blocks)
                if self._drafter is not None:
                    self._drafter.scrub(blocks)
