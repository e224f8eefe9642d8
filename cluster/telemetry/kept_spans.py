"""``KeptSpans``: decides at the end of a request which of its spans are exported."""

from __future__ import annotations

from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode

from cluster.telemetry.config import TelemetryConfig

MAX_SPANS = 64  # of one request in one process


@dataclass(slots=True)
class _Request:
    """The spans of one request in this process: the ids of all, and those that have ended."""

    sampled: bool
    ids: list[int] = field(default_factory=list)
    ended: list[ReadableSpan] = field(default_factory=list)
    failed: bool = False


class KeptSpans(SpanProcessor):
    """Gives the spans of a request to ``exported`` when its first one in this process ends: that without a parent here.

    They are kept if the request is sampled by its trace id, a span has failed, or it took ``slow_s`` seconds. Spans
    that begin after MAX_SPANS, or end after the first one, are dropped.
    """

    def __init__(self, config: TelemetryConfig, exported: SpanProcessor) -> None:
        self._config = config
        self._exported = exported
        self._bound = round(config.sample_ratio * 2**64)
        self._requests: dict[int, _Request] = {}  # by the ids of all their spans
        self._pending = 0

    @property
    def full(self) -> bool:
        """Whether as many requests wait for their end as may."""
        return self._pending >= self._config.max_pending

    def sampled(self, span_id: int) -> bool:
        """Returns whether the request of a span is kept in any case."""
        request = self._requests.get(span_id)
        return request is not None and request.sampled

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        context, parent = span.get_span_context(), span.parent
        if parent is None or parent.is_remote:
            followed = self._config.follow_caller and parent is not None and parent.trace_flags.sampled
            request = _Request(bool(followed) or (context.trace_id & (2**64 - 1)) < self._bound)
            self._pending += 1
        elif (known := self._requests.get(parent.span_id)) is not None and len(known.ids) < MAX_SPANS:
            request = known
        else:
            return
        request.ids.append(context.span_id)
        self._requests[context.span_id] = request

    def on_end(self, span: ReadableSpan) -> None:
        request = self._requests.get(span.context.span_id)
        if request is None:
            return
        request.failed = request.failed or span.status.status_code is StatusCode.ERROR
        request.ended.append(span)
        if span.context.span_id != request.ids[0]:
            return
        for each in request.ids:
            del self._requests[each]
        self._pending -= 1
        slow = (span.end_time or 0) - (span.start_time or 0) >= self._config.slow_s * 1e9
        if request.sampled or request.failed or slow:
            for ended in request.ended:
                self._exported.on_end(ended)

    def shutdown(self) -> None:
        self._exported.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exported.force_flush(timeout_millis)
