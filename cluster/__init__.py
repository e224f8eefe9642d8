"""Manta's deployments on Ray Serve, and the launcher of a local service."""
