"""The metrics that the service exports to Prometheus."""
