"""``ReplicaTracer``: what a replica traces of the requests of traced routers: the wait, the prefill and the decoding.

It is called by the event loop when a request comes, and by the engine's thread with the deltas of each step. A delta
costs one look into a dictionary while a traced request runs, and nothing while none does. What happened to a request is
made into spans when it ends, if its trace is kept. The steps that gave it its first and its last token are spans too,
in traces of their own, since a step serves many requests: one span for all that have links to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.trace_record import Link, RecordedSpan, TraceRecord, caller_of, new_trace_id
from cluster.telemetry.trace_sampling import TraceSampler
from engine.api import Delta, FinishReason, GenerationRequest, OverloadedError, RequestError, StepFacts
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.tracer import Value

FAULTS = frozenset({FinishReason.DEADLINE, FinishReason.ERROR})
"""The reasons for which the service is to blame. Clients abort, and ask for what no answer satisfies."""


@dataclass(slots=True)
class TracedStep:
    """A step of the engine that ended at ``ended_ns`` nanoseconds since 1970. ``record`` is its trace, once one of its
    requests has a link to it."""

    facts: StepFacts
    ended_ns: int
    record: TraceRecord | None = None


@dataclass(slots=True)
class TracedRequest:
    """A request that runs, and the step that gave it its first token; None: none has yet."""

    request_id: str
    record: TraceRecord
    first: TracedStep | None = None


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
        try:
            return self._begin(request)
        except Exception as fault:  # noqa: BLE001 - counted and logged; the request runs without its trace
            self._export.lose(None, fault)
            return None

    def _begin(self, request: GenerationRequest) -> TracedRequest | None:
        caller = caller_of(request.trace_context, request.trace_state)
        if caller is None or request.request_id in self._running:
            return None
        described: dict[Attribute, Value] = {
            Attribute.TIER: self._tier,
            Attribute.PRIORITY: request.priority.name.lower(),
            Attribute.RESUMED_TOKENS: len(request.resume),
        }
        record = self._export.begin(SpanName.GENERATE.value, caller)  # after what may fail: it takes up room
        if record is None:
            return None
        record.spans[0].describe(described)
        traced = self._running[request.request_id] = TracedRequest(request.request_id, record)
        return traced

    def refused(self, traced: TracedRequest | None, error: BaseException) -> None:
        """Ends the span of a request that the engine refused with ``error``, as failed unless its client or the load is
        the reason. ``traced`` is what ``came`` returned."""
        if traced is None or self._running.pop(traced.request_id, None) is None:
            return
        span = traced.record.spans[0]
        span.describe({Attribute.ERROR: type(error).__name__})
        span.failed = not isinstance(error, RequestError | OverloadedError)
        span.end()
        try:
            if self._export.end(traced.record):
                self._export.send(traced.record)
        except Exception as fault:  # noqa: BLE001 - counted and logged; ``error`` is what the caller has to see
            self._export.lose(traced.record, fault)

    def stepped(self, deltas: Sequence[Delta], facts: StepFacts) -> None:
        """Takes the deltas of the engine step that ``facts`` are about: notes the first tokens of traced requests, and
        ends the spans of those whose last delta is among them."""
        if not self._running:
            return
        step: TracedStep | None = None
        for delta in deltas:
            traced = self._running.get(delta.request_id)
            if traced is None or (traced.first is not None and delta.usage is None and delta.finish_reason is None):
                continue  # most deltas are neither the first nor the last of their request
            begins = traced.first is None and bool(delta.token_ids)
            if begins or delta.last:
                step = step or TracedStep(facts, time.time_ns())
                traced.first = step if begins else traced.first
                if delta.last and self._running.pop(delta.request_id, None) is not None:
                    try:
                        self._end(traced, delta, step)
                    except Exception as fault:  # noqa: BLE001 - counted and logged; raised here it would end the engine
                        self._export.lose(traced.record, fault)

    def close(self) -> None:
        """Sends the spans that have ended, before the process ends."""
        self._export.close()

    def _end(self, traced: TracedRequest, last: Delta, step: TracedStep) -> None:
        """Ends the span of a request with the ``last`` delta, which came with ``step``. If the trace is kept, adds the
        spans of the phases and sends it."""
        span, reason = traced.record.spans[0], last.finish_reason
        span.failed = reason in FAULTS
        span.end(step.ended_ns)
        if self._export.end(traced.record):
            self._describe(span, last)
            self._add_phases(traced, last, step)
            self._export.send(traced.record)

    def _describe(self, span: RecordedSpan, last: Delta) -> None:
        """Adds what the last delta of a request says to its span."""
        if (usage := last.usage) is not None:
            span.describe(
                {
                    Attribute.INPUT_TOKENS: usage.prompt_tokens,
                    Attribute.OUTPUT_TOKENS: usage.completion_tokens,
                    Attribute.CACHED_TOKENS: usage.cached_tokens,
                    Attribute.PREEMPTIONS: len(last.preempted_s or ()) or None,
                }
            )
        if (reason := last.finish_reason) is not None:
            span.describe({Attribute.FINISH_REASONS: (reason.value,)})
            span.describe({Attribute.ERROR: reason.value if span.failed else None})

    def _add_phases(self, traced: TracedRequest, last: Delta, step: TracedStep) -> None:
        """Adds the spans of a request's phases, with links to its first step and to the last, ``step``, and the events
        of its preemptions. One that has not finished has no phases, since the engine does not say how long it
        waited."""
        if last.waited_s is None:
            return
        record, first = traced.record, traced.first
        span = record.spans[0]
        for seconds in last.preempted_s or ():
            record.event(span, EventName.PREEMPTION, dict, span.started_ns + round(seconds * 1e9))
        first_ns = step.ended_ns if first is None else first.ended_ns
        admitted_ns = min(span.started_ns + round(last.waited_s * 1e9), first_ns)
        record.begin(SpanName.QUEUE.value, span.span_id, span.started_ns).end(admitted_ns)
        prefill = record.begin(SpanName.PREFILL.value, span.span_id, admitted_ns)
        prefill.end(first_ns)
        prefill.links = (self._link(first or step),)
        if first is not None:
            decode = record.begin(SpanName.DECODE.value, span.span_id, first_ns)
            decode.end(step.ended_ns)
            decode.links = (self._link(step),)

    def _link(self, step: TracedStep) -> Link:
        """Returns the link to a step, whose span is sent with the first one."""
        if step.record is None:
            record = TraceRecord(new_trace_id(), sampled=True)
            span = record.begin(SpanName.STEP.value, 0, step.ended_ns - round(step.facts.seconds * 1e9))
            span.serves = False
            span.describe(
                {
                    Attribute.TIER: self._tier,
                    Attribute.STEP: step.facts.number,
                    Attribute.STEP_SEQUENCES: step.facts.sequences,
                    Attribute.STEP_PROMPT_TOKENS: step.facts.prompt_tokens,
                }
            )
            span.end(step.ended_ns)
            self._export.send(record)
            step.record = record
        return Link(step.record.trace_id, step.record.spans[0].span_id)
