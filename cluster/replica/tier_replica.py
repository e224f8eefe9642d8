"""``TierReplica``: a replica of a tier. It is an actor that runs one engine, and routers reach it through lanes.

The engine runs on a thread of its own. After each step it passes the deltas to the actor's event loop, which sorts them
into the lanes of their requests. When a lane ends, its router has left or died. Its requests are then aborted within
one engine step.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cluster.autoscaling.latency_window import LatencyWindow
from cluster.autoscaling.replica_report import to_numbers
from cluster.config import TierConfig
from cluster.lanes.dataclass_codec import Record, VersionMismatchError
from cluster.lanes.lane_messages import (
    LaneItem,
    account_in,
    first_lane_item,
    lane_item,
    pack,
    pack_fault,
    pack_refusal,
    unpack_request,
)
from cluster.lanes.request_validation import validated_at_once
from cluster.model_version import model_version
from cluster.process_memory import return_free_memory
from cluster.replica.engine_counts import engine_counts
from cluster.replica.fair_threads import FairThreads
from cluster.replica.lane_registry import LaneRegistry
from cluster.replica.speed_group import accelerator_of_node, speed_group
from cluster.telemetry.application_name import application_name
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.log_context import logged_request
from cluster.telemetry.logs import replica_logs, replica_name
from cluster.telemetry.make_otlp_instruments import make_otlp_instruments
from cluster.telemetry.replica_metrics import ReplicaMetrics
from cluster.telemetry.start_failures import StartFailures
from cluster.telemetry.tracing import replica_tracer
from engine.api import (
    Delta,
    EngineDeadError,
    EngineError,
    EngineLoad,
    EngineStats,
    GenerationRequest,
    Grammar,
    ModelInfo,
    ModelVersionError,
    Priority,
    StepFacts,
    TtftObjective,
)
from router.ports.replica_load import ReplicaLoad

if TYPE_CHECKING:
    from engine.metrics import EngineMetrics

OnStep = Callable[[Sequence[Delta]], None]
"""The callback of an engine. It is called on the engine thread after each step, with the deltas of the step."""

HEARTBEAT_S = 0.5  # between items of a lane without rows, which carry the load alone; also during a long step

MAX_NEW_GRAMMARS = 2  # requests whose new grammars are compiled at the same time; the engine tries two at once
MAX_LONG_REQUESTS = 4  # other requests that take time to validate, mostly long prompts, which are tokenised


class ReplicaEngine(Protocol):
    """The engine of a replica. ``engine.async_engine.AsyncEngine`` implements it; its docstrings apply here too."""

    def start(self) -> None: ...
    def close(self) -> None: ...
    def submit(self, request: GenerationRequest) -> None: ...
    def knows_grammar(self, grammar: Grammar) -> bool: ...
    def abort(self, request_ids: Iterable[str]) -> None: ...
    def stats(self) -> EngineStats: ...
    def load(self) -> EngineLoad: ...
    @property
    def last_step(self) -> StepFacts: ...
    def metrics(self) -> EngineMetrics: ...
    def expect(self, objectives: Mapping[Priority, TtftObjective]) -> None: ...
    def check_alive(self) -> None: ...
    def check_health(self) -> None: ...
    @property
    def model_info(self) -> ModelInfo: ...


class ReplicaDescription(NamedTuple):
    """The state of a replica at one instant, for operators and tests.

    ``pid`` is its process id. ``requests`` counts the unfinished requests of all lanes.
    """

    pid: int
    requests: int
    model: ModelInfo
    stats: EngineStats


EngineFactory = Callable[[TierConfig, OnStep], ReplicaEngine]
"""The function that makes a tier's engine. It is called in the replica's process."""


class TierReplica:
    """The actor of one replica. The constructor loads the model and starts the engine. The public methods are called
    through Serve handles.

    ``make_engine`` makes the engine from ``tier``. ``telemetry`` None: the defaults. The argument ``replica_id`` of
    some methods is not used here: PinnedRequestRouter reads it from the call.
    """

    def __init__(self, tier: TierConfig, make_engine: EngineFactory, telemetry: TelemetryConfig | None = None) -> None:
        began = time.monotonic()
        telemetry = telemetry or TelemetryConfig()
        replica_logs(telemetry.logs, tier.name)
        self._loop = asyncio.get_running_loop()
        self._tracer = replica_tracer(telemetry, tier.name, application_name())
        self._registry = LaneRegistry()
        self._new_grammars = FairThreads(MAX_NEW_GRAMMARS, "new-grammars")
        self._long_requests = FairThreads(MAX_LONG_REQUESTS, "long-requests")
        with StartFailures(tier.name, application_name()).counted():
            self._version = model_version(tier.engine)
            self._engine = make_engine(tier, self._on_step)
            self._engine.start()
        return_free_memory()
        self._start_s = time.monotonic() - began
        self._latencies = LatencyWindow(time.monotonic())
        kernels = self._engine.metrics().kernels
        self._speed = speed_group(tier, self._version, kernels, accelerator_of_node())
        application = application_name()
        self._sent = make_otlp_instruments(telemetry, "replica", replica_name(), application)
        metrics = ReplicaMetrics(tier.name, self._version, self._sent or RayInstruments(application))
        # It must not hold the replica itself, which ends when nothing does.
        self._publishing = self._loop.create_task(metrics.keep_publishing(self._engine.metrics))

    def reconfigure(self, objectives: Mapping[str, Sequence[float]]) -> None:
        """Sets the objectives by which requests are late, for autoscaling: the fields of ``TtftObjective`` by the name
        of the class (``ttft_objectives``). Serve calls it after the constructor, and again when they change, without a
        restart."""
        self._engine.expect({Priority[name.upper()]: TtftObjective(*each) for name, each in objectives.items()})

    async def lane(self, lane_id: str, *, replica_id: str) -> AsyncGenerator[LaneItem, None]:
        """Opens a lane and yields its items until the router closes it: one per engine step, or after HEARTBEAT_S.

        When the lane ends, its unfinished requests are aborted, and other routers get their counts. Raises ValueError
        if the lane is open already, and EngineDeadError once the engine has died: a lane that stayed open would say
        that the replica takes requests, until Serve's health checks have replaced it.
        """
        self._engine.check_alive()
        outbox = self._registry.open(lane_id)
        try:
            yield first_lane_item(self._load(), self._model)
            while True:
                rows = await outbox.take(HEARTBEAT_S)
                # Before the rows: requests whose ends came ahead of the end of the lane would be sent here again.
                self._engine.check_alive()
                yield lane_item(self._load(), rows, outbox.take_orphans())
        finally:
            self._engine.abort(self._registry.close(lane_id))

    async def submit(self, lane_id: str, packed: Record, *, replica_id: str) -> Record | None:
        """Submits a packed request, whose deltas go to the lane. Returns the packed refusal; None: it was accepted.

        Refusals are engine errors, VersionMismatchError, EngineDeadError if the lane is not open, and ModelVersionError
        if another version of the model has begun the answer.
        """
        try:
            request = unpack_request(packed)
            with logged_request(request.request_id, lambda: request.trace_context), self._traced(request):
                await self._submit(lane_id, request, account_in(packed))
        except (EngineError, VersionMismatchError) as refusal:
            return pack_refusal(refusal)
        return None

    async def submit_all(self, lane_id: str, packed: Sequence[Record], *, replica_id: str) -> list[Record | None]:
        """Submits requests that are validated at once. Returns for each what ``submit`` returns, or, if that raises an
        error, ``pack_fault`` of it: a request that breaks must not take the others along."""
        replies: list[Record | None] = []
        for each in packed:
            try:
                replies.append(await self.submit(lane_id, each, replica_id=replica_id))
            except Exception as error:  # noqa: BLE001 whatever it is, the caller raises it for this request
                replies.append(pack_fault(error))
            except BaseException as error:
                if type(error).__name__ != "PanicException":
                    raise
                replies.append(pack_fault(error))  # of a library in Rust, such as the tokenizer's; no Exception
            await asyncio.sleep(0)  # lets the lanes send what the engine has made meanwhile
        return replies

    async def abort(self, lane_id: str, request_ids: Sequence[str], *, replica_id: str) -> None:
        """Aborts requests. Their KV blocks are free within one engine step. The last row of each has the engine's token
        counts, for the ledger. Unknown ids are ignored. ``lane_id`` has no effect: requests of other lanes are aborted
        too."""
        self._engine.abort(request_ids)

    async def ping(self) -> None:
        """Does nothing. A call makes Serve report the deployment's running replicas to the caller's process."""

    async def describe(self) -> ReplicaDescription:
        """Returns the process id, the number of unfinished requests, the model and the engine's statistics."""
        return ReplicaDescription(os.getpid(), self._registry.requests, self._model, self._engine.stats())

    async def counts(self) -> dict[str, Any]:
        """Returns the counts of the engine as the fields of ``EngineCounts``, for the overview of administrators."""
        return engine_counts(self._engine.metrics(), self._engine.load())

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the numbers by which the tier is scaled (``replica_report``). Where a tier is autoscaled,
        Serve calls it a few times per control interval, and carries them to its controller."""
        load = self._engine.load()
        return to_numbers(load, self._latencies.latencies(load, time.monotonic()), self._start_s, self._speed)

    def check_health(self) -> None:
        """Raises EngineDeadError if the engine has died or makes no progress. Serve calls it every
        ``health_check_period_s``."""
        self._engine.check_health()

    def __del__(self) -> None:
        # Serve calls it when a replica ends.
        engine = getattr(self, "_engine", None)  # absent if the model failed to load
        if engine is not None:
            engine.close()
            self._new_grammars.close()
            self._long_requests.close()
        publishing = getattr(self, "_publishing", None)  # absent if the engine did not start
        if publishing is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(publishing.cancel)
        if engine is not None and self._tracer is not None:
            self._tracer.close()
        sent = getattr(self, "_sent", None)
        if sent is not None:
            sent.close()

    @contextmanager
    def _traced(self, request: GenerationRequest) -> Iterator[None]:
        """Begins the span of a request, which its last delta ends, or the error by which it is refused."""
        if self._tracer is None:
            yield
            return
        traced = self._tracer.came(request)
        try:
            yield
        except BaseException as error:
            self._tracer.refused(traced, error)
            raise

    async def _submit(self, lane_id: str, request: GenerationRequest, account: str) -> None:
        """Assigns the request to the lane and submits it. Raises what the engine raises."""
        if request.model_version not in ("", self._version):
            raise ModelVersionError("The replica has another version of the model than the one that began the answer.")
        if not self._registry.claim(lane_id, request.request_id, account):
            raise EngineDeadError("The lane of this request is not open here.")
        try:
            if validated_at_once(request):
                self._engine.submit(request)
            else:
                await self._submit_in_thread(lane_id, request)
        except BaseException:  # also a cancellation or a library's panic: the request must not keep its lane
            self._registry.release(request.request_id)
            raise
        finally:
            if not self._registry.owns(lane_id, request.request_id):
                self._engine.abort([request.request_id])  # the lane closed or the request was aborted meanwhile

    async def _submit_in_thread(self, lane_id: str, request: GenerationRequest) -> None:
        """Submits a request that takes time to validate. Raises what the engine raises.

        The scheduler, which is fair to tenants, does not know it yet: so tenants take turns here. To compile a new
        grammar may take seconds. Requests with new grammars have threads of their own, so that no other requests wait
        for them.
        """
        grammar = request.sampling.grammar
        quick = grammar is None or self._engine.knows_grammar(grammar)
        threads = self._long_requests if quick else self._new_grammars
        call = partial(copy_context().run, self._submit_late, lane_id, request, time.monotonic())
        submission = threads.run(request.tenant, call)
        try:
            await asyncio.shield(submission)  # a call in a thread cannot be cancelled
        except asyncio.CancelledError:
            submission.add_done_callback(partial(self._abort_late, request.request_id))
            raise

    def _submit_late(self, lane_id: str, request: GenerationRequest, came_at: float) -> None:
        """Submits a request that has come at ``came_at``, by the monotonic clock. Raises EngineDeadError if its lane
        has ended or the call that brought it was cancelled, since no client waits for it. Called on a thread."""
        if not self._registry.owns(lane_id, request.request_id):
            raise EngineDeadError("The lane of this request has ended.")
        self._engine.submit(request.after(time.monotonic() - came_at))

    def _abort_late(self, request_id: str, submission: asyncio.Future[None]) -> None:
        """Aborts a request that the engine got after the call that brought it was cancelled."""
        if not submission.cancelled() and submission.exception() is None:
            self._engine.abort([request_id])

    @property
    def _model(self) -> ModelInfo:
        """The model, with its version."""
        return replace(self._engine.model_info, version=self._version)

    def _load(self) -> ReplicaLoad:
        return ReplicaLoad.of(self._engine.stats(), self._engine.load(), self._registry.lanes)

    def _on_step(self, deltas: Sequence[Delta]) -> None:
        """Called on the engine thread. It packs the deltas there, so that the event loop has less work."""
        if self._tracer is not None:
            self._tracer.stepped(deltas, self._engine.last_step)
        self._loop.call_soon_threadsafe(self._registry.deliver, pack(deltas))
