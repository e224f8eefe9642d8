"""``CallTracer``: what the classifier, the embedder and the semantic cache trace of the calls of traced routers.

A call is one span, with the wait and the batches that its texts were computed in. These are made into spans when the
call has ended, if its trace is kept. Several calls share a batch: each has a span of it, by its own times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.log_context import logged_request
from cluster.telemetry.noted_batches import noted_batches
from cluster.telemetry.trace_record import CANCELLED, TraceRecord, caller_of
from cluster.telemetry.trace_sampling import TraceSampler
from router.ports.trace_names import Attribute, SpanName
from safety.encoder.batch_runner import BatchFacts


class CallTracer:
    """The traces of the calls that this process answers in ``role``, with spans called ``name``. ``refusals`` are the
    errors that are not its fault."""

    def __init__(
        self,
        config: TelemetryConfig,
        role: str,
        name: SpanName,
        refusals: tuple[type[Exception], ...] = (),
        application: str = "",
    ) -> None:
        self._export = TraceSampler(config, role, follows=True, application=application)
        self._name = name
        self._blameless: tuple[type[BaseException], ...] = (asyncio.CancelledError, *refusals)

    def call(self, headers: Mapping[str, str] | None) -> AbstractContextManager[None]:
        """Returns the context of a call, whose span ends with it, as failed if it raises an error that is the actor's
        fault. Within it, log lines and calls to other actors belong to that span. ``headers`` are the caller's
        ``trace_headers``; None or {}: it does not trace the request."""
        if not headers:
            return nullcontext()
        try:
            caller = caller_of(headers.get("traceparent"), headers.get("tracestate", ""))
            record = None if caller is None else self._export.begin(self._name.value, caller)
        except Exception as fault:  # noqa: BLE001 - counted and logged; the call goes on without its trace
            self._export.lose(None, fault)
            record = None
        return nullcontext() if record is None else self._traced(record)

    def close(self) -> None:
        """Sends the spans that have ended, before the process ends."""
        self._export.close()

    @contextmanager
    def _traced(self, record: TraceRecord) -> Iterator[None]:
        span = record.spans[0]
        with logged_request("", lambda: record.traceparent(span), record.state), noted_batches() as batches:
            try:
                yield
            except BaseException as error:
                cancelled = isinstance(error, asyncio.CancelledError)
                span.describe({Attribute.ERROR: CANCELLED if cancelled else type(error).__name__})
                span.failed = not isinstance(error, self._blameless)
                raise
            finally:
                span.end()
                self._end(record, batches)

    def _end(self, record: TraceRecord, batches: Sequence[BatchFacts]) -> None:
        """Has the trace of a call sent, if it is kept. Does not raise."""
        try:
            if self._export.end(record):
                for facts in batches:
                    _add_batches(record, facts)
                self._export.send(record)
        except Exception as fault:  # noqa: BLE001 - counted and logged; the call has its reply
            self._export.lose(record, fault)


def _add_batches(record: TraceRecord, facts: BatchFacts) -> None:
    """Adds the spans of the wait for the first batch, and of the batches."""
    first = record.spans[0]
    begun_ns = facts.ended_ns - round(facts.computed_s * 1e9)
    queued_ns = max(first.started_ns, begun_ns - round(facts.waited_s * 1e9))
    record.begin(SpanName.QUEUE.value, first.span_id, queued_ns).end(begun_ns)
    if facts.batches:
        batch = record.begin(SpanName.BATCH.value, first.span_id, begun_ns)
        batch.describe(
            {
                Attribute.BATCH_MODEL: facts.model,
                Attribute.BATCH_COUNT: facts.batches,
                Attribute.BATCH_SEQUENCES: facts.largest,
                Attribute.CALL_SEQUENCES: facts.sequences,
            }
        )
        batch.end(facts.ended_ns)
