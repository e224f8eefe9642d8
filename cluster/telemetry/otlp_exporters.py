"""``exporter_of`` and ``metric_exporter_of``: send finished spans, and metrics, to a receiver of OTLP, by HTTP or gRPC,
on the SDK's own threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc
import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.metric_encoding import metrics_request
from cluster.telemetry.otlp_encoding import KeptTrace, export_requests

logger = logging.getLogger(__name__)

Message = ExportTraceServiceRequest | ExportMetricsServiceRequest
MakeStub = Callable[[grpc.Channel], Any]


class OtlpSender:
    """Sends messages by ``send`` to one receiver. Messages that the receiver does not take are lost. The first loss in
    a row is logged; ``what`` is the kind of the messages, such as ``traces``, for that line."""

    def __init__(self, what: str, send: Callable[[Message], None], close: Callable[[], None]) -> None:
        self._what = what
        self._send = send
        self.close = close
        self._failing = False

    def sent(self, message: Message) -> bool:
        """Sends ``message``. Returns whether the receiver has taken it."""
        try:
            self._send(message)
        except (httpx.HTTPError, grpc.RpcError) as error:
            if not self._failing:
                logger.warning("%s are lost: the receiver fails: %s", self._what, type(error).__name__)
            self._failing = True
            return False
        self._failing = False
        return True


class OtlpExporter(SpanExporter):
    """Sends traces by ``sender``, for the SDK of OpenTelemetry, which has queued each as a span."""

    def __init__(self, sender: OtlpSender) -> None:
        self._sender = sender

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        traces = cast("Sequence[KeptTrace]", spans)
        sent = [self._sender.sent(message) for message in export_requests(traces)]
        return SpanExportResult.SUCCESS if all(sent) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._sender.close()


class OtlpMetricExporter(MetricExporter):
    """Sends metrics by ``sender``, for the SDK of OpenTelemetry. Counters are sums since the start, so that a lost
    export loses no count."""

    def __init__(self, sender: OtlpSender) -> None:
        super().__init__()
        self._sender = sender

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        sent = self._sender.sent(metrics_request(metrics_data))
        return MetricExportResult.SUCCESS if sent else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True  # nothing waits here

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        self._sender.close()


def exporter_of(config: TelemetryConfig) -> OtlpExporter:
    """Returns the exporter of traces to ``config.endpoint``, which must be set."""
    assert config.endpoint is not None
    return OtlpExporter(_sender("traces", config, config.endpoint, TraceServiceStub))


def metric_exporter_of(config: TelemetryConfig) -> OtlpMetricExporter:
    """Returns the exporter of metrics to ``config.metrics.endpoint``, which must be set."""
    assert config.metrics.endpoint is not None
    return OtlpMetricExporter(_sender("metrics", config, config.metrics.endpoint, MetricsServiceStub))


def _sender(what: str, config: TelemetryConfig, endpoint: str, stub: MakeStub) -> OtlpSender:
    headers = {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
    if config.protocol == "grpc":
        return _by_grpc(what, endpoint, headers, config.timeout_s, stub)
    return _by_http(what, endpoint, headers, config.timeout_s)


def _by_http(what: str, endpoint: str, headers: dict[str, str], timeout_s: float) -> OtlpSender:
    client = httpx.Client(headers={**headers, "content-type": "application/x-protobuf"}, timeout=timeout_s)

    def send(message: Message) -> None:
        client.post(endpoint, content=message.SerializeToString()).raise_for_status()

    return OtlpSender(what, send, client.close)


def _by_grpc(what: str, endpoint: str, headers: dict[str, str], timeout_s: float, make_stub: MakeStub) -> OtlpSender:
    target = endpoint.removeprefix("https://").removeprefix("http://")
    clear = endpoint.startswith("http://")  # as in OpenTelemetry's specification: TLS is the default
    channel = grpc.insecure_channel(target) if clear else grpc.secure_channel(target, grpc.ssl_channel_credentials())
    stub = make_stub(channel)

    def send(message: Message) -> None:
        stub.Export(message, timeout=timeout_s, metadata=tuple(headers.items()))

    return OtlpSender(what, send, channel.close)
