"""Exports of traces are no larger than receivers by gRPC take, however much is in them."""

from __future__ import annotations

import pytest

from cluster.telemetry import trace_sampling
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.otlp_encoding import MAX_BYTES
from cluster.telemetry.trace_record import MAX_EVENTS, MAX_OF_NAME, MAX_SPANS, MAX_TEXT, TraceRecord
from cluster.telemetry.trace_sampling import MAX_BATCH, TraceSampler
from router.ports.trace_names import Attribute, EventName
from tests.cluster.otlp_receiver import grpc_receiver

GRPC_BYTES = 4 * 1024 * 1024  # what a server of gRPC takes by default


def largest(sampler: TraceSampler) -> TraceRecord:
    """A trace with all spans and events that there may be, 16 texts in each, and more that are dropped."""
    record = sampler.begin("chat fast", None)
    assert record is not None
    texts = dict.fromkeys(list(Attribute)[:16], "x" * 2 * MAX_TEXT)
    first = record.spans[0]
    for _ in range(MAX_SPANS + 3):
        record.begin("answer", first.span_id).describe(texts)
    for name in EventName:
        for _ in range(MAX_OF_NAME + 3):
            record.event(first, name, lambda: texts)
    for span in record.spans:
        span.end()
    return record


def test_full_batches_of_the_largest_traces_reach_a_receiver_of_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_sampling, "CLOSE_S", 120.0)
    with grpc_receiver() as received:
        sampler = TraceSampler(
            TelemetryConfig(endpoint=received.endpoint, protocol="grpc", sample_ratio=1.0), "router", follows=False
        )
        for _ in range(MAX_BATCH):
            record = largest(sampler)
            assert sampler.end(record)
            sampler.send(record)
        sampler.close()
    assert sum(map(len, received.bodies)) > GRPC_BYTES, "one message would have been too large"
    assert max(map(len, received.bodies)) <= MAX_BYTES < GRPC_BYTES
    assert len({span.trace_id for span in received.spans}) == MAX_BATCH
    assert len(received.spans) == MAX_BATCH * MAX_SPANS
    assert {len(span.events) for span in received.spans} == {0, MAX_EVENTS}
