"""``Flight``: identical requests of one router that share one generation. A pure table of states.

The first requests of a flight wait while the store is asked who leads. One of them is to lead, and the others wait
for its answer. If the leader fails or its client leaves, one of those that wait takes its place::

    state      found    granted  refused    unshared  unavailable  answered  passed on  ended
    ASKING     SETTLED  LEADING  FOLLOWING  SETTLED   SETTLED      -         -          SETTLED
    FOLLOWING  SETTLED  LEADING  FOLLOWING  SETTLED   SETTLED      -         -          SETTLED
    LEADING    -        -        -          -         -            SETTLED   LEADING    SETTLED
    SETTLED    -        -        -          -         -            -         -          -

FOLLOWING: a request of another router leads; the store is asked again and again. ``unshared``: that leader's answer may
not be stored. ``ended``: no request waits or leads any more, or the answer of this flight's leader may not be shared.
A transition that is not in the table raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

MAX_PROMOTIONS = 2
"""Leaders of a flight after the first. What has failed that often would fail for each that waits, one after the other;
so they all go alone then."""


class FlightState(StrEnum):
    """The state of a flight."""

    ASKING = "asking"
    FOLLOWING = "following"
    LEADING = "leading"
    SETTLED = "settled"


class FlightEvent(StrEnum):
    """The events that change the state of a flight."""

    FOUND = "found"  # the store has the entry
    GRANTED = "granted"  # the store lets this router lead
    REFUSED = "refused"  # another router leads
    UNSHARED = "unshared"  # another router has led, and its answer may not be stored
    UNAVAILABLE = "unavailable"  # the store does not answer
    ANSWERED = "answered"  # the leader has the answer
    PASSED_ON = "passed on"  # the leader has failed, and another request leads
    ENDED = "ended"


ASKED = (FlightState.ASKING, FlightState.FOLLOWING)
TRANSITIONS = (
    {
        (state, event): after
        for state in ASKED
        for event, after in {
            FlightEvent.FOUND: FlightState.SETTLED,
            FlightEvent.GRANTED: FlightState.LEADING,
            FlightEvent.REFUSED: FlightState.FOLLOWING,
            FlightEvent.UNSHARED: FlightState.SETTLED,
            FlightEvent.UNAVAILABLE: FlightState.SETTLED,
        }.items()
    }
    | {
        (FlightState.LEADING, FlightEvent.ANSWERED): FlightState.SETTLED,
        (FlightState.LEADING, FlightEvent.PASSED_ON): FlightState.LEADING,
    }
    | {(state, FlightEvent.ENDED): FlightState.SETTLED for state in (*ASKED, FlightState.LEADING)}
)


class IllegalFlightError(RuntimeError):
    """The event is not allowed in the flight's present state."""


class FlightRole(StrEnum):
    """The role of a request in its flight."""

    LEAD = "lead"  # generate for all
    SHARE = "share"  # take the answer
    ALONE = "alone"  # generate for itself


class Assignment(NamedTuple):
    """The role that request ``member`` of a flight gets. Each request gets one, once."""

    member: int
    role: FlightRole


class Flight:
    """The identical requests of one flight, numbered from 0. ``leader`` is the number of the one that generates; None:
    none does.

    Each method raises IllegalFlightError for an event that the present state does not allow, and changes nothing then.
    """

    def __init__(self) -> None:
        self.state = FlightState.ASKING
        self.leader: int | None = None
        self._waiting: dict[int, None] = {}  # in the order of arrival
        self._joined = 0
        self._promotions = 0

    @property
    def waiting(self) -> Sequence[int]:
        """The numbers of the requests without a role yet, in the order of arrival."""
        return tuple(self._waiting)

    def join(self) -> int:
        """Adds a request, which waits. Returns its number. Raises IllegalFlightError for a settled flight."""
        if self.state is FlightState.SETTLED:
            raise IllegalFlightError("a settled flight takes no request")
        member, self._joined = self._joined, self._joined + 1
        self._waiting[member] = None
        return member

    def asked(self, event: FlightEvent) -> list[Assignment]:
        """Takes the store's answer: FOUND, GRANTED, REFUSED, UNSHARED or UNAVAILABLE. Returns the roles that it
        decides; REFUSED decides none."""
        self._step(event)
        match event:
            case FlightEvent.GRANTED:
                return [self._promote()]
            case FlightEvent.FOUND:
                return self._assign_all(FlightRole.SHARE)
            case FlightEvent.REFUSED:
                return []
            case _:
                return self._assign_all(FlightRole.ALONE)

    def answered(self) -> list[Assignment]:
        """Takes the event that the leader has an answer which all may share. Returns the roles of the waiting
        requests."""
        self._step(FlightEvent.ANSWERED)
        self.leader = None
        return self._assign_all(FlightRole.SHARE)

    def unshared(self) -> list[Assignment]:
        """Takes the event that the leader has an answer which others may not share. Returns the roles of the waiting
        requests."""
        self._check(FlightState.LEADING)
        return self._end()

    def failed(self) -> list[Assignment]:
        """Takes the event that the leader has failed or its client has left. Makes the next waiting request the leader,
        at most MAX_PROMOTIONS times; then all go alone. Returns the roles."""
        self._check(FlightState.LEADING)
        if not self._waiting or self._promotions >= MAX_PROMOTIONS:
            return self._end()
        self._step(FlightEvent.PASSED_ON)
        self._promotions += 1
        return [self._promote()]

    def leave(self, member: int) -> None:
        """Removes a request that no longer waits. The others are unaffected. A flight that no request waits in or leads
        becomes settled."""
        self._waiting.pop(member, None)
        if not self._waiting and self.state in ASKED:
            self._step(FlightEvent.ENDED)

    def _end(self) -> list[Assignment]:
        self._step(FlightEvent.ENDED)
        self.leader = None
        return self._assign_all(FlightRole.ALONE)

    def _promote(self) -> Assignment:
        self.leader = next(iter(self._waiting))
        del self._waiting[self.leader]
        return Assignment(self.leader, FlightRole.LEAD)

    def _assign_all(self, role: FlightRole) -> list[Assignment]:
        assigned = [Assignment(member, role) for member in self._waiting]
        self._waiting.clear()
        return assigned

    def _check(self, state: FlightState) -> None:
        if self.state is not state:
            raise IllegalFlightError(f"this needs a flight that is {state}, and it is {self.state}")

    def _step(self, event: FlightEvent) -> None:
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise IllegalFlightError(f"no {event} from {self.state}")
        self.state = after
