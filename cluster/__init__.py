"""The cluster floor: Manta's actor graph on Ray Serve, and the launcher of a local service."""
