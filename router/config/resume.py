"""Streams that a client can resume."""

from __future__ import annotations

from pydantic import Field

from router.config.settings import Settings


class ResumeConfig(Settings):
    """Streams that a client can resume after it has lost its connection: those of requests with ``detach: true``."""

    enabled: bool = True
    """Whether streams can be resumed. Off: ``detach`` has no effect."""
    window_s: float = Field(30.0, gt=0, le=3600)
    """Seconds after its end for which the events of a stream are kept. A request without a reader is aborted after as
    many seconds."""
    max_streams: int = Field(256, ge=1)
    """The most streams of a tenant that are kept. The one whose time ends first makes room."""
    max_bytes: int = Field(16 * 1024 * 1024, ge=65_536)
    """The most bytes of a tenant's events together, in Redis. A token takes about 250 bytes as an event."""
