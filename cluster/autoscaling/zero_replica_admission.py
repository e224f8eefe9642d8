"""``admit``: decides whether a request may wait for the first replica of a tier that is scaled to zero."""

from __future__ import annotations

from typing import NamedTuple

from cluster.autoscaling.config import WaitingRoomConfig
from cluster.autoscaling.snapshot import WaitingRoom


class Refused(NamedTuple):
    """The decision that the request must not wait. ``retry_after_s`` is the expected time until a replica is ready, in
    seconds."""

    why: str
    retry_after_s: float


def admit(config: WaitingRoomConfig, room: WaitingRoom, cold_start_s: float, started_s: float = 0.0) -> Refused | None:
    """Returns None if a request may wait, otherwise the refusal.

    ``room`` has the requests that wait already. ``cold_start_s`` is the measured cold start, in seconds; 0: unknown.
    ``started_s`` is the time since a replica was ordered, in seconds.
    """
    expected_s = max(1.0, cold_start_s - started_s)
    if room.requests >= config.max_requests:
        return Refused(f"{room.requests} requests wait already for the tier to start", expected_s)
    if expected_s > config.ttl_s:
        return Refused(
            f"the tier starts in about {expected_s:.0f} s, and requests wait for {config.ttl_s:.0f} s at most",
            expected_s,
        )
    return None


def expired(config: WaitingRoomConfig, waited_s: float) -> bool:
    """Returns whether a request has waited too long, after ``waited_s`` seconds, and gets the HTTP status 503."""
    return waited_s >= config.ttl_s
