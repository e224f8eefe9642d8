"""What the service exports to Prometheus."""
