"""What routers report of requests that wait for a tier at zero."""

from __future__ import annotations

import json

import pytest

from cluster.autoscaling.snapshot import WaitingRoom
from cluster.autoscaling.waiting_room_store import FORGOTTEN_S, STALE_S, SeenRooms, read_room


def report(number: int, requests: int, tokens: float = 0.0, oldest_s: float = 0.0) -> bytes:
    return json.dumps([number, requests, tokens, oldest_s]).encode()


def test_rooms_of_all_routers_are_added_by_tier() -> None:
    stored = {"fast/a": report(1, 2, 30.0, 4.0), "fast/b": report(9, 1, 5.0, 7.0), "frontier/a": report(1, 1)}
    assert SeenRooms().rooms(stored, 0.0) == {"fast": WaitingRoom(3, 35.0, 7.0), "frontier": WaitingRoom(1)}


def test_a_report_that_does_not_change_is_of_a_router_that_has_died() -> None:
    seen = SeenRooms()
    for second in range(20):
        assert seen.rooms({"fast/a": report(second, 1)}, float(second)) == {"fast": WaitingRoom(1)}
    last = {"fast/a": report(19, 1)}
    assert seen.rooms(last, 19.0 + STALE_S - 0.1) == {"fast": WaitingRoom(1)}
    assert seen.rooms(last, 19.0 + STALE_S) == {}
    assert seen.forgotten(19.0 + STALE_S) == []
    assert seen.forgotten(19.0 + FORGOTTEN_S) == ["fast/a"]


@pytest.mark.parametrize(
    "stored", [b"", b"{}", b"[1]", b"[1, 2, 3, 4, 5]", b'[1, "x", 0, 0]', b"[1, 1, NaN, 0]", b"[1, 0, 0, 0]"]
)
def test_a_report_that_cannot_be_read_counts_for_nothing(stored: bytes) -> None:
    assert read_room(stored) is None
