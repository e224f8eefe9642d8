"""The states of a lane, as a table."""

from __future__ import annotations

from enum import Enum, auto


class LaneState(Enum):
    """The state of a lane."""

    OPENING = auto()  # no item has arrived yet
    READY = auto()  # takes requests
    DRAINING = auto()  # takes no new requests; closes after the last one
    CLOSED = auto()


LANE_STATES: dict[LaneState, frozenset[LaneState]] = {
    LaneState.OPENING: frozenset({LaneState.READY, LaneState.DRAINING, LaneState.CLOSED}),
    LaneState.READY: frozenset({LaneState.DRAINING, LaneState.CLOSED}),
    LaneState.DRAINING: frozenset({LaneState.CLOSED}),
    LaneState.CLOSED: frozenset(),
}
"""The states that may follow each state of a lane."""
