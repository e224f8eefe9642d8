"""``ReplicaTracer``: what a replica traces of the requests of traced routers: the wait, the prefill and the decoding.

It is called by the event loop when a request comes, and by the engine's thread with the deltas of each step. Requests
without a trace cost one look into a dictionary for each delta; without any traced request nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.span_maker import SpanMaker, received, within
from engine.api import FAILURE_REASONS, Delta, FinishReason, GenerationRequest
from router.ports.trace_names import Attribute, SpanName

CLOSE_TO = frozenset({FinishReason.ABORT})
"""Reasons of failure that are the client's choice."""


@dataclass(slots=True)
class _Traced:
    """A request that runs: its span, and when it came and had its first token, in nanoseconds since 1970."""

    span: Span
    came_ns: int
    first_ns: int = 0


class ReplicaTracer:
    """The traces of the replica of ``tier`` in this process."""

    def __init__(self, config: TelemetryConfig, tier: str) -> None:
        self._maker = SpanMaker(config, "replica")
        self._tier = tier
        self._running: dict[str, _Traced] = {}

    def came(self, request: GenerationRequest) -> None:
        """Begins the span of a request, if its router traces it."""
        parent = received(request.trace_context)
        if parent is None or self._maker.kept.full:
            return
        attributes = {
            Attribute.TIER: self._tier,
            Attribute.PRIORITY: request.priority.name.lower(),
            Attribute.RESUMED_TOKENS: len(request.resume),
        }
        now = time.time_ns()
        span = self._maker.begin(SpanName.GENERATE.value, parent, SpanKind.SERVER, attributes, now)
        self._running[request.request_id] = _Traced(span, now)

    def refused(self, request_id: str, error: BaseException) -> None:
        """Ends the span of a request that the engine has not taken."""
        if (traced := self._running.pop(request_id, None)) is not None:
            traced.span.set_attribute(Attribute.ERROR.value, type(error).__name__)
            traced.span.set_status(Status(StatusCode.ERROR))
            traced.span.end()

    def stepped(self, deltas: Sequence[Delta]) -> None:
        """Notes what a step has brought."""
        if not self._running:
            return
        for delta in deltas:
            traced = self._running.get(delta.request_id)
            if traced is None:
                continue
            if not traced.first_ns and delta.token_ids:
                traced.first_ns = time.time_ns()
            if delta.last:
                del self._running[delta.request_id]
                self._end(traced, delta)

    def close(self) -> None:
        """Exports what has ended."""
        self._maker.close()

    def _end(self, traced: _Traced, last: Delta) -> None:
        """Ends the span of a request, with those of its phases within."""
        now, span, first_ns = time.time_ns(), traced.span, traced.first_ns
        if last.waited_s is not None:
            admitted_ns = min(traced.came_ns + round(last.waited_s * 1e9), first_ns or now)
            self._phase(span, SpanName.QUEUE, traced.came_ns, admitted_ns)
            self._phase(span, SpanName.PREFILL, admitted_ns, first_ns or now)
            if first_ns:
                self._phase(span, SpanName.DECODE, first_ns, now)
        if last.usage is not None:
            span.set_attribute(Attribute.INPUT_TOKENS.value, last.usage.prompt_tokens)
            span.set_attribute(Attribute.OUTPUT_TOKENS.value, last.usage.completion_tokens)
            span.set_attribute(Attribute.CACHED_TOKENS.value, last.usage.cached_tokens)
        if last.finish_reason is not None:
            span.set_attribute(Attribute.FINISH_REASONS.value, (last.finish_reason.value,))
        if last.finish_reason in FAILURE_REASONS - CLOSE_TO:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)

    def _phase(self, parent: Span, name: SpanName, start_ns: int, end_ns: int) -> None:
        self._maker.begin(name.value, within(parent), start_ns=start_ns).end(end_ns)
