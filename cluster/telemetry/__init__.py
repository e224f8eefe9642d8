"""Telemetry: the metrics that the service exports to Prometheus, and the traces that it sends by OpenTelemetry."""
