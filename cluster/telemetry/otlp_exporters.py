"""``exporter_of``: sends finished spans to a receiver of OTLP, by HTTP or gRPC, on the SDK's own thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import grpc
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.otlp_encoding import export_request

logger = logging.getLogger(__name__)

Send = Callable[[ExportTraceServiceRequest], None]
"""Sends a message. Raises httpx.HTTPError or grpc.RpcError if the receiver does not take it."""


class OtlpExporter(SpanExporter):
    """Sends spans by ``send``. What the receiver does not take is lost; the first loss in a row is logged."""

    def __init__(self, send: Send, close: Callable[[], None]) -> None:
        self._send = send
        self._close = close
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            self._send(export_request(spans))
        except (httpx.HTTPError, grpc.RpcError) as error:
            if not self._failing:
                logger.warning("traces are lost: the receiver fails: %s", type(error).__name__)
            self._failing = True
            return SpanExportResult.FAILURE
        self._failing = False
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._close()


def exporter_of(config: TelemetryConfig) -> OtlpExporter:
    """Returns the exporter to ``config.endpoint``, which must be set."""
    assert config.endpoint is not None
    headers = {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
    return (_by_grpc if config.protocol == "grpc" else _by_http)(config.endpoint, headers, config.timeout_s)


def _by_http(endpoint: str, headers: dict[str, str], timeout_s: float) -> OtlpExporter:
    client = httpx.Client(headers={**headers, "content-type": "application/x-protobuf"}, timeout=timeout_s)

    def send(message: ExportTraceServiceRequest) -> None:
        client.post(endpoint, content=message.SerializeToString()).raise_for_status()

    return OtlpExporter(send, client.close)


def _by_grpc(endpoint: str, headers: dict[str, str], timeout_s: float) -> OtlpExporter:
    target = endpoint.removeprefix("https://").removeprefix("http://")
    clear = endpoint.startswith("http://")  # as in OpenTelemetry's specification: TLS is the default
    channel = grpc.insecure_channel(target) if clear else grpc.secure_channel(target, grpc.ssl_channel_credentials())
    stub = TraceServiceStub(channel)

    def send(message: ExportTraceServiceRequest) -> None:
        stub.Export(message, timeout=timeout_s, metadata=tuple(headers.items()))

    return OtlpExporter(send, channel.close)
