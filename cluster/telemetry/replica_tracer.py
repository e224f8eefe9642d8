"""``ReplicaTracer``: what a replica traces of the requests of traced routers: the wait, the prefill and the decoding.

It is called by the event loop when a request comes, and by the engine's thread with the deltas of each step. A delta
costs one look into a dictionary while a traced request runs, and nothing while none does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.trace_record import TraceRecord, caller_of
from cluster.telemetry.trace_sampling import TraceSampler
from engine.api import FAILURE_REASONS, Delta, FinishReason, GenerationRequest
from router.ports.trace_names import Attribute, SpanName


@dataclass(slots=True)
class TracedRequest:
    """A request that runs, and when it had its first token, in nanoseconds since 1970."""

    request_id: str
    record: TraceRecord
    first_ns: int = 0


class ReplicaTracer:
    """The traces of the requests that this process, a replica of ``tier``, runs. No method raises."""

    def __init__(self, config: TelemetryConfig, tier: str, application: str = "") -> None:
        self._export = TraceSampler(config, "replica", follows=True, application=application)
        self._tier = tier
        self._running: dict[str, TracedRequest] = {}

    def came(self, request: GenerationRequest) -> TracedRequest | None:
        """Begins the span of a request that has arrived, and returns it for ``refused``. Returns None, and traces
        nothing, if the request's router does not trace it (``trace_context``), ``max_pending`` requests are being
        traced, or another request with its id runs."""
        if request.request_id in self._running or caller_of(request.trace_context) is None:
            return None
        record = self._export.begin(SpanName.GENERATE.value, request.trace_context)
        if record is None:
            return None
        record.spans[0].describe(
            {
                Attribute.TIER: self._tier,
                Attribute.PRIORITY: request.priority.name.lower(),
                Attribute.RESUMED_TOKENS: len(request.resume),
            }
        )
        traced = self._running[request.request_id] = TracedRequest(request.request_id, record)
        return traced

    def refused(self, traced: TracedRequest | None, error: BaseException) -> None:
        """Ends the span of a request that the engine refused with ``error``, as failed. ``traced`` is what ``came``
        returned."""
        if traced is not None and self._running.pop(traced.request_id, None) is not None:
            span = traced.record.spans[0]
            span.describe({Attribute.ERROR: type(error).__name__})
            span.failed = True
            span.end()
            self._export.end(traced.record)

    def stepped(self, deltas: Sequence[Delta]) -> None:
        """Takes the deltas of an engine step: notes the first tokens of traced requests, and ends the spans of those
        whose last delta is among them."""
        if not self._running:
            return
        for delta in deltas:
            traced = self._running.get(delta.request_id)
            if traced is None:
                continue
            if not traced.first_ns and delta.token_ids:
                traced.first_ns = time.time_ns()
            if delta.last and self._running.pop(delta.request_id, None) is not None:
                self._end(traced, delta)

    def close(self) -> None:
        """Sends the spans that have ended, before the process ends."""
        self._export.close()

    def _end(self, traced: TracedRequest, last: Delta) -> None:
        """Ends the span of a request, with those of its phases within."""
        now, record, first_ns = time.time_ns(), traced.record, traced.first_ns
        span = record.spans[0]
        if last.waited_s is not None:
            admitted_ns = min(span.started_ns + round(last.waited_s * 1e9), first_ns or now)
            record.begin(SpanName.QUEUE.value, span.span_id, span.started_ns).end(admitted_ns)
            record.begin(SpanName.PREFILL.value, span.span_id, admitted_ns).end(first_ns or now)
            if first_ns:
                record.begin(SpanName.DECODE.value, span.span_id, first_ns).end(now)
        if (usage := last.usage) is not None:
            span.describe(
                {
                    Attribute.INPUT_TOKENS: usage.prompt_tokens,
                    Attribute.OUTPUT_TOKENS: usage.completion_tokens,
                    Attribute.CACHED_TOKENS: usage.cached_tokens,
                }
            )
        if (reason := last.finish_reason) is not None:
            span.describe({Attribute.FINISH_REASONS: (reason.value,)})
            span.failed = reason in FAILURE_REASONS and reason is not FinishReason.ABORT  # which clients do
        span.end(now)
        self._export.end(record)
