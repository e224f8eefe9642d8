"""Runs an engine on a thread of its own (vLLM's ``AsyncLLM``), which sleeps while there are no requests.

Callers on other threads put jobs and aborts into an inbox, which the engine's thread empties before every step. No lock
is held during a step, so callers never wait for one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from engine.admission import Job
from engine.api import (
    Delta,
    EngineDeadError,
    EngineLoad,
    EngineStats,
    FinishReason,
    GenerationRequest,
    Grammar,
    ModelInfo,
    OverloadedError,
    Priority,
    RequestError,
    StepFacts,
    TtftObjective,
)
from engine.engine import Engine
from engine.load import waits
from engine.log_failure import log_failure
from engine.metrics import EngineMetrics
from engine.scheduler.queue import reported_class
from engine.scheduler.queue_limit import check_room

LOAD_PERIOD_S = 0.25
"""Between two looks at the load while the engine is busy, since one takes time for every sequence."""

OnStep = Callable[[Sequence[Delta]], None]


class AsyncEngine:
    """Thread-safe front of ``engine``. Calls ``on_step`` with the deltas of each step, on the engine's thread.

    ``on_step`` must not block. If it raises, the engine ends. ``check_health`` takes a step of more than
    ``step_limit_s`` seconds for hung.
    """

    def __init__(self, engine: Engine, on_step: OnStep, step_limit_s: float = 60.0) -> None:
        self._engine = engine
        self._on_step = on_step
        self._step_limit_s = step_limit_s
        self._thread = threading.Thread(target=self._run, name="manta-engine", daemon=True)
        self._changed = threading.Condition()
        # Only read and written while holding the condition's lock:
        self._live: set[str] = set()  # submitted, and neither ended nor aborted
        self._inbox: list[Job | str] = []  # jobs to queue and ids to abort, in the order in which they came
        self._arrivals: Counter[str] = Counter()  # jobs in the inbox, by tenant
        self._stats = engine.stats()
        self._uncached = engine.uncached  # the share of prompt tokens that the prefix cache does not have
        self._queue = engine.queue_state()
        self._load = engine.load()
        self._load_at = time.monotonic()
        self._since = engine.waiting_since()  # of the oldest waiting request of each class
        self._asleep = True  # the thread has nothing to do, so that the load stays what it was
        self._closing = False
        self._aborted: list[Delta] = []  # used by the engine's thread alone
        self._step_began: float | None = None
        self._death: BaseException | None = None

    @property
    def model_info(self) -> ModelInfo:
        """The loaded model's name, context length and vocabulary size."""
        return self._engine.model_info

    def start(self) -> None:
        """Starts the thread. Raises RuntimeError if it was started before."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the current step. Requests that are left end with an ABORT delta. May be called
        again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is threading.current_thread():
            return
        if self._thread.is_alive():
            self._thread.join()
        self._engine.close()

    def submit(self, request: GenerationRequest) -> None:
        """Tokenises and checks a request on the calling thread, and queues it. Its deltas go to ``on_step``.

        Raises RequestError, also for a request id in use; OverloadedError if the waiting queue is full or a grammar
        cannot be compiled at the moment; or EngineDeadError. After an error the request is not queued.
        """
        with self._changed:
            self._check_room(request)  # before the work of tokenising
        job = self._engine.prepare(request)
        with self._changed:
            self._check_room(request)
            if request.request_id in self._live:
                raise RequestError(f"request_id {request.request_id!r} is in use", "request_id")
            self._live.add(request.request_id)
            self._engine.recorder.refused_by_router(request.refused_before)
            self._inbox.append(job)
            self._arrivals[request.tenant] += 1
            self._changed.notify()

    def knows_grammar(self, grammar: Grammar) -> bool:
        """Returns whether a grammar has been compiled or refused before, so that ``submit`` need not compile it."""
        return self._engine.knows_grammar(grammar)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Aborts requests: their KV blocks are freed before the next step.

        The last delta of each has the reason ABORT and its token counts, unless the step that is running ends it.
        Ignores unknown ids.
        """
        with self._changed:
            for request_id in request_ids:
                self._live.discard(request_id)
                self._inbox.append(request_id)
            self._changed.notify()

    def stats(self) -> EngineStats:
        """Returns the statistics of the last step. A request submitted since then counts as one waiting sequence, whose
        prompt is cached as much as others were."""
        with self._changed:
            if not self._arrivals:
                return self._stats
            short, long = list(self._stats.queued_short), list(self._stats.queued_long)
            for item in self._inbox:
                if isinstance(item, Job):
                    tokens = round(self._uncached * item.sequence.prompt_length)
                    queued = short if tokens <= self._engine.config.prefill_chunk else long
                    queued[reported_class(item.sequence.rank)] += tokens
            return replace(
                self._stats,
                waiting=self._stats.waiting + self._arrivals.total(),
                queued_short=tuple(short),
                queued_long=tuple(long),
            )

    def metrics(self) -> EngineMetrics:
        """Returns the metrics up to now. Each number is correct; while a step runs, some may include it and others
        not. The wait of the oldest request may be that of one which was admitted less than LOAD_PERIOD_S ago."""
        with self._changed:
            since = dict(self._since)
            arrived = [item.sequence for item in self._inbox if isinstance(item, Job)]
        for sequence in arrived:
            since.setdefault(sequence.priority, sequence.arrived)
        oldest_wait_s = waits(since, self._engine.now())
        return self._engine.recorder.snapshot(self.stats(), self._queue.by_line, oldest_wait_s)

    @property
    def last_step(self) -> StepFacts:
        """The last step with a forward pass. It is that of the deltas when ``on_step`` reads it."""
        return self._engine.last_step

    def load(self) -> EngineLoad:
        """Returns the engine's work and speed as last measured, at most LOAD_PERIOD_S seconds and a step ago. A request
        submitted since the last step counts as one waiting sequence. ``age_s`` grows while a step hangs."""
        with self._changed:
            age_s = 0.0 if self._asleep else time.monotonic() - self._load_at
            if not self._arrivals and age_s <= LOAD_PERIOD_S:
                return self._load
            return replace(self._load, waiting=self._load.waiting + self._arrivals.total(), age_s=age_s)

    def expect(self, objectives: Mapping[Priority, TtftObjective]) -> None:
        """Counts requests as late (``ClassLoad.late``) by these objectives from now on. A class without one has no
        count."""
        self._engine.recorder.objectives = dict(objectives)

    def check_alive(self) -> None:
        """Raises EngineDeadError if the thread has ended or was not started, or if the process of another rank has
        failed. A step that hangs does not matter here, since it may still end."""
        if self._death is not None:
            words = self._death if isinstance(self._death, EngineDeadError) else type(self._death).__name__
            raise EngineDeadError(f"The engine has died: {words}") from self._death
        if self._closing or not self._thread.is_alive():
            raise EngineDeadError("The engine is not running.")
        self._engine.check_health()

    def check_health(self) -> None:
        """Raises EngineDeadError as ``check_alive`` does, or if the current step takes longer than ``step_limit_s``."""
        self.check_alive()
        began = self._step_began
        if began is not None and time.monotonic() - began > self._step_limit_s:
            raise EngineDeadError(f"A step has been running for more than {self._step_limit_s:g} s.")

    def _check_room(self, request: GenerationRequest) -> None:
        """Raises OverloadedError if the waiting queue is full for the request's tenant, or EngineDeadError. The caller
        holds the lock. An answer that another engine has begun is never refused."""
        if self._closing or self._death is not None:
            raise EngineDeadError("The engine is not running.")
        self._engine.check_health()  # an idle engine does not notice otherwise that another rank has ended
        if request.resume:
            return
        try:
            check_room(request.tenant, self._queue, self._arrivals, self._engine.config.max_waiting)
        except OverloadedError:
            self._engine.recorder.refuse(request.tenant, request.priority, continues=request.continues)
            raise

    def _run(self) -> None:
        """The body of the engine's thread. Keeps the exception that ends it for ``check_health``."""
        for phase in (self._serve, self._end_all):
            try:
                phase()
            except BaseException as error:  # noqa: BLE001 - kept for check_health: an exception in a thread is lost
                log_failure("the engine's thread", error)
                self._death = self._death or error

    def _serve(self) -> None:
        """Runs steps until the engine is closed."""
        while self._await_work():
            self._step()

    def _await_work(self) -> bool:
        """Sleeps until there is a request, and passes the inbox to the engine. Returns False when closing."""
        with self._changed:
            self._asleep = True
            self._changed.wait_for(lambda: self._closing or self._inbox or self._engine.has_work)
            self._asleep = False
            for item in self._inbox:
                if isinstance(item, Job):
                    self._engine.enqueue(item)
                    self._since.setdefault(item.sequence.priority, item.sequence.arrived)
                else:
                    self._aborted += self._engine.abort([item])
            if self._inbox:  # else nothing has changed since the last step
                self._inbox = []
                self._arrivals.clear()
                self._look()
            return not self._closing

    def _step(self) -> None:
        """Runs one step and passes its deltas on."""
        self._step_began = time.monotonic()
        deltas = self._engine.step()
        self._step_began = None
        with self._changed:
            deltas = [*self._take_aborted(), *deltas]
            self._live.difference_update(delta.request_id for delta in deltas if delta.last)
            self._look()
        if deltas:
            self._on_step(deltas)
        self._engine.check_health()  # raises here, so that no more requests queue for an engine that cannot compute
        if not self._engine.has_work:
            self._engine.repair()
            with self._changed:
                self._look()  # what was repaired must not be reported until the next request comes

    def _take_aborted(self) -> list[Delta]:
        """Returns the last deltas of the requests that were aborted since the last call. Leaves out those whose id has
        been submitted again, where they would end the new request. The caller holds the lock."""
        aborted, self._aborted = self._aborted, []
        return [delta for delta in aborted if delta.request_id not in self._live]

    def _look(self) -> None:
        """Stores the statistics that callers get until the next step. The caller holds the lock."""
        self._stats = self._engine.stats()
        self._uncached = self._engine.uncached
        self._queue = self._engine.queue_state()
        now = time.monotonic()
        if now - self._load_at >= LOAD_PERIOD_S or not self._engine.has_work:
            self._load, self._load_at = self._engine.load(), now
            self._since = self._engine.waiting_since()

    def _end_all(self) -> None:
        """Ends every remaining request with an ABORT or ERROR delta, so that no caller waits forever."""
        with self._changed:
            self._closing = True
            aborted = self._take_aborted()
            left, self._live = sorted(self._live), set()
        if aborted:
            self._on_step(aborted)
        if not left:
            return
        reason, error = FinishReason.ABORT, None
        if self._death is not None:
            reason, error = FinishReason.ERROR, "The engine has died."
        self._on_step([Delta(request_id, (), "", reason, None, error) for request_id in left])
