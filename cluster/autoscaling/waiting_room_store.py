"""``WaitingRoomStore``: what waits at routers for tiers at zero, in the key-value store of Ray's head (GCS).

Ray Serve has a signal of its own, calls that are queued at a deployment without replicas. But it then starts a replica
without asking the policy, so that pins, GPU budgets and the reasons of decisions would not count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list, _internal_kv_put

from cluster.autoscaling.decision_store import NAMESPACE
from cluster.autoscaling.snapshot import WaitingRoom

STALE_S = 5.0
"""Seconds after which a report that does not change is no longer believed: its router has died."""
FORGOTTEN_S = 60.0
"""Seconds after which it is deleted."""

Stored = Mapping[str, bytes]
"""The reports by their keys, which end with the name of the tier and that of the router."""


class WaitingRoomStore:
    """The waiting rooms of one application. All methods block. They raise RayError, RpcError or OSError if Ray's
    key-value store fails."""

    def __init__(self, application: str) -> None:
        self._prefix = f"autoscaling/{application}/waiting/"

    def write(self, tier: str, router: str, room: WaitingRoom, number: int) -> None:
        """Stores a router's report on its waiting room for ``tier``, or deletes it if no request waits. ``number``
        differs from that of the report before, so that a reader sees that the router lives."""
        key = f"{self._prefix}{tier}/{router}"
        if not room.requests:
            _internal_kv_del(key, namespace=NAMESPACE)
            return
        report = [number, room.requests, room.prompt_tokens, room.oldest_s]
        _internal_kv_put(key, json.dumps(report), overwrite=True, namespace=NAMESPACE)

    def read(self) -> Stored:
        """Returns the reports of all routers."""
        keys = [key.decode() for key in _internal_kv_list(self._prefix, namespace=NAMESPACE)]
        stored = {key: _internal_kv_get(key, namespace=NAMESPACE) for key in keys}
        return {key.removeprefix(self._prefix): value for key, value in stored.items() if value}

    def delete(self, key: str) -> None:
        """Deletes a report."""
        _internal_kv_del(self._prefix + key, namespace=NAMESPACE)


@dataclass(frozen=True, slots=True)
class _Seen:
    report: bytes
    at_s: float  # when it was first seen


class SeenRooms:
    """The reports with the instants at which this process first saw them. A report that has not changed for STALE_S
    seconds does not count, since its router has died. Clocks of other machines have no effect."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def rooms(self, stored: Stored, at_s: float) -> dict[str, WaitingRoom]:
        """Returns the waiting room of each tier, summed over all routers, at the instant ``at_s`` in monotonic seconds.
        ``stored`` are the present reports."""
        before = self._seen
        self._seen = {
            key: before[key] if key in before and before[key].report == report else _Seen(report, at_s)
            for key, report in stored.items()
        }
        rooms: dict[str, WaitingRoom] = {}
        for key, seen in self._seen.items():
            if at_s - seen.at_s < STALE_S and (room := read_room(seen.report)) is not None:
                tier = key.partition("/")[0]
                rooms[tier] = added(rooms.get(tier, WaitingRoom()), room)
        return rooms

    def forgotten(self, at_s: float) -> list[str]:
        """Returns the keys of the reports that have not changed for FORGOTTEN_S seconds at the instant ``at_s``, and
        should be deleted."""
        return [key for key, seen in self._seen.items() if at_s - seen.at_s >= FORGOTTEN_S]


def read_room(report: bytes) -> WaitingRoom | None:
    """Returns a stored room; None for one that cannot be read, such as another release's."""
    try:
        _, requests, tokens, oldest_s = json.loads(report)
        room = WaitingRoom(int(requests), float(tokens), float(oldest_s))
    except (TypeError, ValueError):
        return None
    numbers = (room.prompt_tokens, room.oldest_s)
    return room if room.requests > 0 and all(map(math.isfinite, numbers)) and min(numbers) >= 0 else None


def added(one: WaitingRoom, other: WaitingRoom) -> WaitingRoom:
    """Returns the sum of two rooms, with the age of the older oldest request."""
    tokens = one.prompt_tokens + other.prompt_tokens
    return WaitingRoom(one.requests + other.requests, tokens, max(one.oldest_s, other.oldest_s))
