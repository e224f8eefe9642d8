"""The engine on a thread of its own, which sleeps when there is nothing to do.

Callers on other threads leave jobs and aborts in an inbox; the engine's thread empties it before every step. The lock
is never held during a step, so callers never wait for one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine.admission import Job
from engine.api import (
    Delta,
    EngineDeadError,
    EngineStats,
    FinishReason,
    GenerationRequest,
    Grammar,
    ModelInfo,
    OverloadedError,
    RequestError,
)
from engine.engine import Engine
from engine.failures import log_failure
from engine.metrics import EngineMetrics
from engine.scheduler.door import check_room

OnStep = Callable[[Sequence[Delta]], None]


class AsyncEngine:
    """Runs ``engine`` and hands the deltas of each step to ``on_step``, on the engine's thread.

    ``on_step`` must not block; one that raises ends the engine. ``step_limit_s`` is how long a step may take before
    ``check_health`` takes it for hung, in seconds.
    """

    def __init__(self, engine: Engine, on_step: OnStep, step_limit_s: float = 60.0) -> None:
        self._engine = engine
        self._on_step = on_step
        self._step_limit_s = step_limit_s
        self._thread = threading.Thread(target=self._run, name="manta-engine", daemon=True)
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._live: set[str] = set()  # submitted, and neither ended nor aborted
        self._inbox: list[Job | str] = []  # jobs to queue and ids to abort, in the order in which they came
        self._arrivals: Counter[str] = Counter()  # jobs in the inbox, by tenant
        self._stats = engine.stats()
        self._queue = engine.queue_state()
        self._closing = False
        self._step_began: float | None = None
        self._death: BaseException | None = None

    @property
    def model_info(self) -> ModelInfo:
        """The loaded model."""
        return self._engine.model_info

    def start(self) -> None:
        """Starts the thread; once."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the step under way; what is left ends with an ABORT delta. May be called again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is threading.current_thread():
            return
        if self._thread.is_alive():
            self._thread.join()
        self._engine.close()

    def submit(self, request: GenerationRequest) -> None:
        """Tokenises and checks the request on the calling thread and queues it.

        Raises RequestError, OverloadedError or EngineDeadError; then nothing has been queued.
        """
        with self._changed:
            self._check_room(request.tenant)  # before the work of tokenising
        job = self._engine.prepare(request)
        with self._changed:
            self._check_room(request.tenant)
            if request.request_id in self._live:
                raise RequestError(f"request_id {request.request_id!r} is in use", "request_id")
            self._live.add(request.request_id)
            self._inbox.append(job)
            self._arrivals[request.tenant] += 1
            self._changed.notify()

    def knows_grammar(self, grammar: Grammar) -> bool:
        """Whether a grammar has been compiled or refused before, so that ``submit`` spends no time on it."""
        return self._engine.knows_grammar(grammar)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Gives requests up: their blocks are free before the next step begins.

        No delta says so. A step that is under way may still bring one last delta. Unknown ids are ignored.
        """
        with self._changed:
            for request_id in request_ids:
                self._live.discard(request_id)
                self._inbox.append(request_id)
            self._changed.notify()

    def stats(self) -> EngineStats:
        """As of the last step, with what has been submitted since as waiting."""
        with self._changed:
            return replace(self._stats, waiting=self._stats.waiting + self._arrivals.total())

    def metrics(self) -> EngineMetrics:
        """What was recorded up to now. Each number is right; while the engine runs they may be a step apart."""
        return self._engine.recorder.snapshot(self.stats(), self._queue.by_line)

    def check_health(self) -> None:
        """Raises EngineDeadError if the thread has ended, was never started, or a step takes longer than the limit; or
        if a process of another rank is gone, even while there is nothing to do."""
        if self._death is not None:
            words = self._death if isinstance(self._death, EngineDeadError) else type(self._death).__name__
            raise EngineDeadError(f"The engine has died: {words}") from self._death
        if self._closing or not self._thread.is_alive():
            raise EngineDeadError("The engine is not running.")
        began = self._step_began
        if began is not None and time.monotonic() - began > self._step_limit_s:
            raise EngineDeadError(f"A step has been running for more than {self._step_limit_s:g} s.")
        self._engine.check_health()

    def _check_room(self, tenant: str) -> None:
        """Under the lock. Raises OverloadedError or EngineDeadError."""
        if self._closing or self._death is not None:
            raise EngineDeadError("The engine is not running.")
        self._engine.check_health()  # ranks may have ended while there was nothing to do
        try:
            check_room(tenant, self._queue, self._arrivals, self._engine.config.max_waiting)
        except OverloadedError:
            self._engine.recorder.refuse(tenant)
            raise

    def _run(self) -> None:
        for phase in (self._serve, self._end_all):
            try:
                phase()
            except BaseException as error:  # noqa: BLE001 - kept for check_health: an exception in a thread is lost
                log_failure("the engine's thread", error)
                self._death = self._death or error

    def _serve(self) -> None:
        while self._await_work():
            self._step()

    def _await_work(self) -> bool:
        """Sleeps until there is something to do, and takes the inbox; False when closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._inbox or self._engine.has_work)
            for item in self._inbox:
                if isinstance(item, Job):
                    self._engine.enqueue(item)
                else:
                    self._engine.abort([item])
            self._inbox = []
            self._arrivals.clear()
            self._look()
            return not self._closing

    def _step(self) -> None:
        self._step_began = time.monotonic()
        deltas = self._engine.step()
        self._step_began = None
        with self._changed:
            self._live.difference_update(delta.request_id for delta in deltas if delta.last)
            self._look()
        if deltas:
            self._on_step(deltas)
        self._engine.check_health()  # fails here, so that requests stop queueing for an engine that cannot compute
        if not self._engine.has_work:
            self._engine.repair()

    def _look(self) -> None:
        """Takes the statistics that callers see until the next step. Under the lock."""
        self._stats = self._engine.stats()
        self._queue = self._engine.queue_state()

    def _end_all(self) -> None:
        """Ends every live request with a delta, so that no caller waits for ever."""
        with self._changed:
            self._closing = True
            left, self._live = sorted(self._live), set()
        if not left:
            return
        reason, error = FinishReason.ABORT, None
        if self._death is not None:
            reason, error = FinishReason.ERROR, "The engine has died."
        self._on_step([Delta(request_id, (), "", reason, None, error) for request_id in left])
