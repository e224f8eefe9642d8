"""``SpanMaker``: begins spans by OpenTelemetry's SDK, and reads and writes W3C's traceparent."""

from __future__ import annotations

import re
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, set_span_in_context

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.kept_spans import KeptSpans
from cluster.telemetry.otlp_exporters import exporter_of
from router.ports.trace_names import Attribute
from router.ports.tracer import Value

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""A traceparent of version 00, or of a later one, of which the same part is read."""
MAX_TEXT = 128  # characters of an attribute
MAX_EXPORT_WAIT_MS = 1000.0


class SpanMaker:
    """The spans of this process. ``role`` is ``router`` or ``replica``, for the resource's attributes."""

    def __init__(self, config: TelemetryConfig, role: str) -> None:
        self.kept = KeptSpans(config, BatchSpanProcessor(exporter_of(config), schedule_delay_millis=MAX_EXPORT_WAIT_MS))
        resource = Resource({"service.name": config.service_name, "manta.role": role})
        limits = SpanLimits(max_attribute_length=MAX_TEXT)
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=limits)
        self._provider.add_span_processor(self.kept)
        self._tracer = self._provider.get_tracer("manta")

    def begin(
        self,
        name: str,
        parent: Context | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[Attribute, Value] | None = None,
        start_ns: int | None = None,
    ) -> Span:
        """Begins a span. ``parent`` is ``within`` or ``received``; None: it has none."""
        given = {} if attributes is None else {key.value: value for key, value in attributes.items()}
        return self._tracer.start_span(name, parent or Context(), kind, given, start_time=start_ns)

    def traceparent(self, span: Span) -> str:
        """Returns the traceparent of a span for those that work for it."""
        context = span.get_span_context()
        flags = int(self.kept.sampled(context.span_id))
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"

    def close(self) -> None:
        """Exports what has ended, and ends the thread."""
        self._provider.shutdown()


def within(span: Span) -> Context:
    """Returns the context of what happens within a span of this process."""
    return set_span_in_context(span, Context())


def received(traceparent: str | None) -> Context | None:
    """Returns the context of a span elsewhere; None for one that is missing or malformed."""
    found = TRACEPARENT.fullmatch(traceparent or "")
    if found is None or (found[4] and traceparent is not None and traceparent.startswith("00")):
        return None
    trace, span, flags = int(found[1], 16), int(found[2], 16), int(found[3], 16)
    remote = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(remote), Context())
