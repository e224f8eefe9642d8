"""``TraceSampler``: decides at the end of a request whether its spans are kept, and has them sent. They are encoded on
the thread of the SDK's processor.

``ray_manta_untraced_requests_total`` counts, by ``role`` (router, replica, classifier, embedder, cache) and
``application``, the requests without a trace because as many as ``max_pending`` were being traced.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.otlp_encoding import KeptTrace
from cluster.telemetry.otlp_exporters import exporter_of
from cluster.telemetry.trace_faults import TraceFaults
from cluster.telemetry.trace_record import Caller, TraceRecord, new_trace_id

logger = logging.getLogger(__name__)

MAX_EXPORT_WAIT_MS = 1000.0
CLOSE_S = 2.0
MAX_QUEUE = 2_500  # traces that wait for the receiver; beyond that they are dropped
MAX_BATCH = 128  # traces that are encoded together


class TraceSampler:
    """The traces of an actor. ``role`` is what it is, such as ``router``, for the resource's attributes. ``follows``: a
    trace that the caller samples is sampled here too. Otherwise the caller's decision has no effect."""

    def __init__(self, config: TelemetryConfig, role: str, *, follows: bool, application: str = "") -> None:
        self._config, self._role = config, role
        self._follows = follows
        self._decides = role == "router"  # the others sample what the router has sampled
        known = Resource({"service.name": config.service_name, "manta.role": role}).attributes
        resource = {name: value for name, value in known.items() if isinstance(value, str)}
        self._pending: set[int] = set()  # first spans; a replica begins and ends them on two threads
        made = RayInstruments(application)
        self._untraced = made.counter(
            "manta_untraced_requests", "Requests for whose trace there was no room.", ("role",)
        )
        self._faults = TraceFaults(made, role)
        self._warned = False
        self._processor = BatchSpanProcessor(
            exporter_of(config, resource, self._faults),
            max_queue_size=MAX_QUEUE,
            max_export_batch_size=MAX_BATCH,
            schedule_delay_millis=MAX_EXPORT_WAIT_MS,
        )

    def begin(self, name: str, caller: Caller | None) -> TraceRecord | None:
        """Begins the trace of a request with its first span in this process, called ``name``. If ``caller`` is None, a
        new trace begins. Returns None, and the request is not traced, while ``max_pending`` requests are being
        traced."""
        if len(self._pending) >= self._config.max_pending:
            self._count_untraced()
            return None
        trace_id, state = (new_trace_id(), "") if caller is None else (caller.trace_id, caller.state)
        followed = self._follows and caller is not None and caller.sampled
        sampled = followed or (self._decides and random.random() < self._config.sample_ratio)
        record = TraceRecord(trace_id, sampled, followed, state)
        first = record.begin(name, 0 if caller is None else caller.span_id)
        self._pending.add(first.span_id)
        return record

    def draw(self, record: TraceRecord, tenant: str) -> None:
        """Draws again whether a trace is kept in any case, if ``tenant``, whose it is, has a share of its own. One that
        follows its caller stays."""
        ratio = self._config.tenant_sample_ratios.get(tenant)
        if ratio is not None and not record.followed:
            record.sampled = random.random() < ratio

    def end(self, record: TraceRecord) -> bool:
        """Ends a trace, whose first span has ended. Returns whether it is kept: it is sampled, one of its spans has
        failed, or it took ``slow_s`` seconds. Then the caller has it sent. Otherwise its events are dropped, which hold
        parts of the request."""
        first = record.spans[0]
        self._pending.discard(first.span_id)
        slow = first.ended_ns - first.started_ns >= self._config.slow_s * 1e9
        kept = record.sampled or slow or True in [span.failed for span in record.spans]
        if not kept:
            record.noted.clear()
        return kept

    def send(self, record: TraceRecord) -> None:
        """Has the spans of a trace sent. Those that have not ended are dropped."""
        record.settle()
        kept = KeptTrace(record.trace_id, tuple(span for span in record.spans if span.ended_ns), record.state)
        self._processor.on_end(cast("ReadableSpan", kept))

    def lose(self, record: TraceRecord | None, error: Exception) -> None:
        """Counts a trace that ``error``, a fault of tracing, has lost, and frees its place; None: it had not begun.
        Does not raise. The tracers catch such faults and call this, so that none ends a request or an engine."""
        if record is not None:
            self._pending.discard(record.spans[0].span_id)
            record.noted.clear()
        self._faults.lost(error)

    def close(self) -> None:
        """Sends the traces that have ended, for at most CLOSE_S seconds, since Serve waits for it when a replica
        ends."""
        closing = threading.Thread(target=self._processor.shutdown, name="manta-last-traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _count_untraced(self) -> None:
        """Counts a request that is not traced. The first one is logged."""
        self._untraced.inc(1, {"role": self._role})
        if not self._warned:
            logger.warning("telemetry.max_pending: %d requests are traced, further ones are not", len(self._pending))
        self._warned = True
