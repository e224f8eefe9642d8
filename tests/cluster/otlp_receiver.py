"""Real receivers of OTLP, by HTTP and by gRPC, which keep what they are sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass
class Received:
    """What a receiver was sent: whole bodies, their spans, and the headers of each."""

    endpoint: str = ""
    bodies: list[bytes] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    roles: dict[bytes, str] = field(default_factory=dict)  # the process of each span
    headers: list[dict[str, str]] = field(default_factory=list)
    metrics_endpoint: str = ""
    resources: list[dict[str, object]] = field(default_factory=list)  # of each export of metrics
    metrics: dict[str, Metric] = field(default_factory=dict)  # as they came last

    def take_metrics(self, body: bytes, headers: dict[str, str]) -> None:
        self.bodies.append(body)
        self.headers.append(headers)
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            self.resources.append(attributes(resource.resource.attributes))
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}

    def number(self, name: str, **labels: str) -> NumberDataPoint:
        """The point of a counter or gauge with these labels, as it came last."""
        metric = self.metrics[name]
        points = metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
        found: list[NumberDataPoint] = [point for point in points if attributes(point.attributes) == labels]
        assert len(found) == 1
        return found[0]

    def histogram(self, name: str, **labels: str) -> HistogramDataPoint:
        """The point of a histogram with these labels, as it came last."""
        points = self.metrics[name].histogram.data_points
        found: list[HistogramDataPoint] = [point for point in points if attributes(point.attributes) == labels]
        assert len(found) == 1
        return found[0]

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        self.bodies.append(body)
        self.headers.append(headers)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            role = attributes(resource.resource.attributes)["manta.role"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                self.spans.append(span)
                self.roles[span.span_id] = str(role)

    def named(self, name: str) -> Span:
        """The only span of this name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def children(self, span: Span) -> list[str]:
        """The names of the spans within another one, in the order of their beginnings."""
        found = [each for each in self.spans if each.parent_span_id == span.span_id]
        return [each.name for each in sorted(found, key=lambda each: each.start_time_unix_nano)]


def attributes(pairs: object) -> dict[str, object]:
    """Attributes by name."""
    return {pair.key: _value(pair.value) for pair in pairs}  # type: ignore[attr-defined]


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))


def failed(span: Span) -> bool:
    """Whether a span has the status of an error."""
    return span.status.code == Status.STATUS_CODE_ERROR


@contextmanager
def http_receiver() -> Iterator[Received]:
    """A receiver at ``/v1/traces`` and ``/v1/metrics``."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            take = {"/v1/traces": received.take, "/v1/metrics": received.take_metrics}[self.path]
            body = self.rfile.read(int(self.headers["content-length"]))
            take(body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    received.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    received.metrics_endpoint = f"http://127.0.0.1:{server.server_port}/v1/metrics"
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_receiver() -> Iterator[Received]:
    """A receiver by gRPC."""
    received = Received()

    class Service(TraceServiceServicer):
        def Export(  # noqa: N802 - the name of the service's method
            self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
        ) -> ExportTraceServiceResponse:
            received.take(request.SerializeToString(), dict(context.invocation_metadata()))
            return ExportTraceServiceResponse()

    class Metrics(MetricsServiceServicer):
        def Export(  # noqa: N802 - the name of the service's method
            self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
        ) -> ExportMetricsServiceResponse:
            received.take_metrics(request.SerializeToString(), dict(context.invocation_metadata()))
            return ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Service(), server)
    add_MetricsServiceServicer_to_server(Metrics(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    received.endpoint = received.metrics_endpoint = f"http://127.0.0.1:{port}"
    try:
        yield received
    finally:
        server.stop(None).wait()
