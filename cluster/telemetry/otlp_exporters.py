"""``exporter_of`` and ``metric_exporter_of``: send finished spans, and metrics, to a receiver of OTLP, by HTTP or gRPC,
on the SDK's own threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import grpc
import httpx
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.metric_encoding import metrics_request
from cluster.telemetry.otlp_encoding import KeptTrace, encoded_resource, encoded_spans, export_requests
from cluster.telemetry.trace_faults import TraceFaults
from router.ports.tracer import Value

logger = logging.getLogger(__name__)

Send = Callable[[bytes], None]
TRACES_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS_METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


class OtlpSender:
    """Sends encoded messages by ``send`` to one receiver. Messages that the receiver does not take are lost. The first
    loss in a row is logged; ``what`` is the kind of the messages, such as ``traces``, for that line."""

    def __init__(self, what: str, send: Send, close: Callable[[], None]) -> None:
        self._what = what
        self._send = send
        self.close = close
        self._failing = False

    def sent(self, message: bytes) -> bool:
        """Sends ``message``. Returns whether the receiver has taken it. Does not raise."""
        try:
            self._send(message)
        except Exception as error:  # noqa: BLE001 - logged; a closed channel raises what is no RpcError
            if not self._failing:
                logger.warning("%s are lost: the receiver fails: %s", self._what, type(error).__name__)
            self._failing = True
            return False
        self._failing = False
        return True


class OtlpExporter(SpanExporter):
    """Encodes the traces of a process whose attributes are ``resource``, and sends them by ``sender``, for the SDK of
    OpenTelemetry, which has queued each as a span. A trace that cannot be encoded is lost to ``faults``, and no other
    one with it."""

    def __init__(self, sender: OtlpSender, resource: Mapping[str, Value], faults: TraceFaults) -> None:
        self._sender, self._faults = sender, faults
        self._resource = encoded_resource(resource)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        traces = cast("Sequence[KeptTrace]", spans)
        encoded = [span for kept in traces for span in self._encoded(kept)]
        sent = [self._sender.sent(message) for message in export_requests(self._resource, encoded)]
        return SpanExportResult.SUCCESS if all(sent) else SpanExportResult.FAILURE

    def _encoded(self, kept: KeptTrace) -> list[bytes]:
        try:
            return encoded_spans(kept)
        except Exception as fault:  # noqa: BLE001 - counted and logged; whatever is odd about it, the others are sent
            self._faults.lost(fault)
            return []

    def shutdown(self) -> None:
        self._sender.close()


class OtlpMetricExporter(MetricExporter):
    """Sends metrics by ``sender``, for the SDK of OpenTelemetry. Counters are sums since the start, so that a lost
    export loses no count."""

    def __init__(self, sender: OtlpSender) -> None:
        super().__init__()
        self._sender = sender

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        sent = self._sender.sent(metrics_request(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS if sent else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True  # nothing waits here

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        self._sender.close()


def exporter_of(config: TelemetryConfig, resource: Mapping[str, Value], faults: TraceFaults) -> OtlpExporter:
    """Returns the exporter of traces to ``config.endpoint``, which must be set. ``resource`` are the attributes of this
    process; ``faults`` counts the traces that cannot be encoded."""
    assert config.endpoint is not None
    return OtlpExporter(_sender("traces", config, config.endpoint, TRACES_METHOD), resource, faults)


def metric_exporter_of(config: TelemetryConfig) -> OtlpMetricExporter:
    """Returns the exporter of metrics to ``config.metrics.endpoint``, which must be set."""
    assert config.metrics.endpoint is not None
    return OtlpMetricExporter(_sender("metrics", config, config.metrics.endpoint, METRICS_METHOD))


def _sender(what: str, config: TelemetryConfig, endpoint: str, method: str) -> OtlpSender:
    headers = {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
    if config.protocol == "grpc":
        return _by_grpc(what, endpoint, headers, config.timeout_s, method)
    return _by_http(what, endpoint, headers, config.timeout_s)


def _by_http(what: str, endpoint: str, headers: dict[str, str], timeout_s: float) -> OtlpSender:
    client = httpx.Client(headers={**headers, "content-type": "application/x-protobuf"}, timeout=timeout_s)

    def send(message: bytes) -> None:
        client.post(endpoint, content=message).raise_for_status()

    return OtlpSender(what, send, client.close)


def _by_grpc(what: str, endpoint: str, headers: dict[str, str], timeout_s: float, method: str) -> OtlpSender:
    target = endpoint.removeprefix("https://").removeprefix("http://")
    clear = endpoint.startswith("http://")  # as in OpenTelemetry's specification: TLS is the default
    channel = grpc.insecure_channel(target) if clear else grpc.secure_channel(target, grpc.ssl_channel_credentials())
    export = channel.unary_unary(method)  # bytes as they are, and of the answer nothing is read

    def send(message: bytes) -> None:
        export(message, timeout=timeout_s, metadata=tuple(headers.items()))

    return OtlpSender(what, send, channel.close)
