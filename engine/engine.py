"""The engine: schedule → run → sample → emit, one step at a time, on the caller's thread.

A failure inside one sequence ends that sequence with an ERROR delta; a failure of the forward pass ends those that were
in it. In both cases their blocks are free again and the engine goes on.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from engine.admission import Admission, Job
from engine.api import (
    Completion,
    Conversation,
    Delta,
    EngineError,
    EngineStats,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    OverloadedError,
    RequestError,
    SamplingParams,
)
from engine.config import EngineConfig
from engine.decode.sampling import Draw, sample
from engine.kernels.reference import ReferenceKernels
from engine.kv.cache import KVCache
from engine.model.decoder import Decoder
from engine.runner import Runner
from engine.scheduler.plan import Chunk, Plan
from engine.scheduler.scheduler import Limits, Scheduler
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Counters:
    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0


class Engine:
    """Continuous batching over one model. Not thread-safe, but for ``prepare``; AsyncEngine puts it on a thread."""

    def __init__(self, config: EngineConfig, model: Decoder, tokenizer: Tokenizer) -> None:
        self.config = config
        context = min(config.context_length or model.spec.context_length, config.num_blocks * config.block_size)
        name = config.name or Path(config.model).name
        self.model_info = ModelInfo(name, context, model.spec.vocab_size)
        self._admission = Admission(tokenizer, model.spec.vocab_size, context)
        self._cache = KVCache(config.num_blocks, config.block_size, config.prefix_caching)
        limits = Limits(config.max_batch_tokens, config.prefill_chunk, config.max_sequences)
        self._scheduler = Scheduler(self._cache, limits)
        self._runner = Runner(model, config, context)
        self._jobs: dict[str, Job] = {}
        self._counters = _Counters()

    @classmethod
    def from_pretrained(cls, path: str | Path, **config: Any) -> Self:
        """Loads a Hugging Face directory; keywords are fields of EngineConfig.

        Raises OSError for missing files, ValueError for settings out of range, UnsupportedModelError for a model that
        is not supported.
        """
        return cls.from_config(EngineConfig(model=str(path), **config))

    @classmethod
    def from_config(cls, config: EngineConfig) -> Self:
        """Loads what ``config.model`` points to. Raises as ``from_pretrained`` does."""
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        directory = Path(config.model)
        dtype: torch.dtype = getattr(torch, config.dtype)
        model = Decoder.from_directory(directory, dtype, torch.device(config.device), ReferenceKernels())
        return cls(config, model, Tokenizer.from_directory(directory))

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        return bool(self._jobs)

    @property
    def overloaded(self) -> bool:
        """Whether the waiting queue is full."""
        return len(self._scheduler.waiting) >= self.config.max_waiting

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenises and checks a request; from any thread. Raises RequestError."""
        return self._admission.prepare(request)

    def add(self, request: GenerationRequest) -> None:
        """Queues a request. Raises RequestError, or OverloadedError when the queue is full."""
        if self.overloaded:
            raise OverloadedError(f"{self.config.max_waiting} requests are waiting already.")
        self.enqueue(self.prepare(request))

    def enqueue(self, job: Job) -> None:
        """Queues a prepared request, however full the queue is. Raises RequestError for an id that is in use."""
        request_id = job.sequence.request_id
        if request_id in self._jobs:
            raise RequestError(f"request_id {request_id!r} is in use", "request_id")
        self._jobs[request_id] = job
        self._scheduler.add(job.sequence)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Ends requests at once, without a delta; their blocks are free on return. Unknown ids are ignored: a request
        may have ended while its abort was on the way."""
        for request_id in request_ids:
            job = self._jobs.pop(request_id, None)
            if job is not None:
                self._scheduler.remove(job.sequence)
                self._counters.aborted += 1

    def step(self) -> list[Delta]:
        """One forward pass for the sequences that the scheduler picks; a delta for each that got a token or ended."""
        plan = self._scheduler.schedule()
        if not plan.chunks:
            return []
        try:
            sampled = self._compute(plan)
        except Exception as error:  # noqa: BLE001 - the fault boundary of a batch: the engine serves the others
            log_failure("a step", error)
            return [self._fail(chunk.sequence.request_id, error) for chunk in plan.chunks]
        self._count(plan)
        return [self._emit(chunk.sequence.request_id, token) for chunk, token in sampled]

    def stats(self) -> EngineStats:
        """Counters since the start and gauges of now."""
        pool, counters = self._cache.pool, self._counters
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            blocks_total=pool.total,
            blocks_used=pool.used,
            blocks_cached=pool.cached,
            steps=counters.steps,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=self._scheduler.cached_tokens,
            generated_tokens=counters.generated_tokens,
            finished=counters.finished,
            aborted=counters.aborted,
            failed=counters.failed,
        )

    def check_integrity(self) -> None:
        """Raises KVIntegrityError if the books of the KV cache do not balance."""
        self._cache.check_integrity()

    def generate(
        self,
        prompts: Sequence[str | Sequence[int] | Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """Completions of all prompts, in their order. ``params`` is one for all or one for each.

        Raises RequestError before anything is run, and EngineError when other requests are under way.
        """
        if self.has_work:
            raise EngineError("generate needs the engine for itself; requests are under way")
        settings = params if isinstance(params, Sequence) else [params or SamplingParams()] * len(prompts)
        if len(settings) != len(prompts):
            raise RequestError(f"{len(prompts)} prompts but {len(settings)} sampling parameters", "params")
        given = [prompt if isinstance(prompt, str | Conversation) else tuple(prompt) for prompt in prompts]
        asked = zip(given, settings, strict=True)
        jobs = [self.prepare(GenerationRequest(str(i), *request)) for i, request in enumerate(asked)]
        for job in jobs:
            self.enqueue(job)
        deltas: dict[str, list[Delta]] = {job.sequence.request_id: [] for job in jobs}
        while self.has_work:
            for delta in self.step():
                deltas[delta.request_id].append(delta)
        return [_completion(parts) for parts in deltas.values()]

    def _compute(self, plan: Plan) -> list[tuple[Chunk, int | None]]:
        """Runs the plan; the chunks after which a token was sampled, with the token, or None where the model's numbers
        have overflowed and there is nothing to sample from."""
        chunks, logits = self._runner.run(plan.chunks)
        draws = [Draw(c.sequence.sampling, c.sequence.seed, len(c.sequence.tokens)) for c in chunks]
        tokens = sample(logits, draws)
        sound = logits.amax(-1).isfinite().tolist()
        for chunk in plan.chunks:
            self._scheduler.computed(chunk)
        return [(c, token if fine else None) for c, token, fine in zip(chunks, tokens, sound, strict=True)]

    def _count(self, plan: Plan) -> None:
        self._counters.steps += 1
        for chunk in plan.chunks:
            sequence = chunk.sequence
            self._counters.prompt_tokens += max(0, min(chunk.end, sequence.prompt_length) - chunk.start)

    def _emit(self, request_id: str, token: int | None) -> Delta:
        """Adds a token to its sequence, and ends the sequence if it is the last."""
        job = self._jobs[request_id]
        sequence = job.sequence
        if token is None:
            self._runner.scrub(self._cache.disown(sequence))
            return self._fail(request_id, FloatingPointError())
        sequence.tokens.append(token)
        self._counters.generated_tokens += 1
        try:
            text, reason = job.output.push(token, last=sequence.generated >= sequence.max_tokens)
        except Exception as error:  # noqa: BLE001 - the fault boundary of a sequence: it fails alone
            log_failure("a sequence", error)
            return self._fail(request_id, error)
        if reason is None:
            return Delta(request_id, (token,), text)
        self._end(request_id)
        self._counters.finished += 1
        return Delta(request_id, (token,), text, reason, sequence.usage)

    def _fail(self, request_id: str, error: Exception) -> Delta:
        usage = self._jobs[request_id].sequence.usage
        self._end(request_id)
        self._counters.failed += 1
        return Delta(request_id, (), "", FinishReason.ERROR, usage, f"The engine failed: {type(error).__name__}")

    def _end(self, request_id: str) -> None:
        self._scheduler.remove(self._jobs.pop(request_id).sequence)


def _completion(deltas: list[Delta]) -> Completion:
    last = deltas[-1]
    if last.finish_reason is None or last.usage is None:
        raise EngineError(f"request {last.request_id} has no end")
    return Completion(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        finish_reason=last.finish_reason,
        usage=last.usage,
        error=last.error,
    )


def log_failure(what: str, error: BaseException) -> None:
    """Logs where it happened, but not the error's own words: they may quote a prompt."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s at\n%s", what, type(error).__name__, frames)
