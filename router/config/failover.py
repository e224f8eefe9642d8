"""What happens to the requests of a replica that is lost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from router.config.settings import Settings


class FailoverConfig(Settings):
    """Failover: how the requests of a replica that dies, hangs or is stopped are continued on another replica."""

    max_attempts: int = Field(3, ge=1)
    """Attempts at a request whose replica was lost, the first one included. Refusals and planned moves do not count."""
    max_lost_replicas: int = Field(2, ge=1)
    """Replicas lost while they ran a request that had got nothing from them, after which it is given up. The limit
    keeps a request that kills replicas from being tried on all of them. One that had got something from its replica is
    not what killed it, and goes on."""
    wait_s: float = Field(60.0, ge=0)
    """Seconds that an answer that has begun waits for a replica to continue it, and that a request waits for one to
    begin it that was admitted while the tier had a replica. Others wait ``placement.wait_s``."""
    on_failure: Literal["error", "partial"] = "error"
    """What a request gets whose whole answer fails after it has begun, unless it says ``on_failure``: the error, or the
    part that was generated. Streams end in the error after what was sent."""
    other_version: Literal["continue", "end"] = "continue"
    """What happens to an answer that has begun if only replicas with another version of the model, or with other engine
    settings, are left. ``continue``: one of them continues it, and the usage says so. ``end``: it ends in an error."""
