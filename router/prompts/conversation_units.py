"""The units of a conversation: messages that are kept or dropped together. Pure.

A tool call and its results are one unit, wherever in the conversation the results are. A turn is a message of the user
and all units up to the next one. System messages, the messages of a template, retrieved context, the last message of
the user and the unit of the last message are pinned: nothing drops them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engine.api import Message

SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: the indices of its messages. ``turn`` is the number of its turn, from 0. Messages before the first user
    message are in turn 0."""

    places: tuple[int, ...]
    turn: int
    pinned: bool


def units_of(messages: Sequence[Message], fixed: Collection[int] = ()) -> list[Unit]:
    """Returns the units of ``messages`` in the order of their first messages. Each message is in one of them.

    ``fixed`` are the indices of messages that are pinned whatever their role is. A result of a tool belongs to the last
    call before it that has its id, or else to the unit before it.
    """
    places: list[list[int]] = []
    turns: list[int] = []
    pinned: set[int] = set()
    owner: dict[str, int] = {}
    current: int | None = None
    turn = 0
    for place, message in enumerate(messages):
        if message.role == "tool" and place not in fixed:
            unit = owner.get(message.tool_call_id or "", current)
            if unit is not None:
                places[unit].append(place)
                continue
        free = place not in fixed and message.role not in SYSTEM_ROLES
        turn += free and message.role == "user"
        places.append([place])
        turns.append(turn)
        if not free:
            pinned.add(len(places) - 1)
            continue
        current = len(places) - 1
        owner |= {call.id: current for call in message.tool_calls if call.id}
    question = last_user_place(messages, fixed)
    for unit, own in enumerate(places):
        if question in own or (messages and len(messages) - 1 in own):
            pinned.add(unit)
    return [Unit(tuple(own), turns[unit], unit in pinned) for unit, own in enumerate(places)]


def last_user_place(messages: Sequence[Message], fixed: Collection[int] = ()) -> int | None:
    """Returns the index of the last user message that is not among ``fixed``; None without one."""
    users = [place for place, each in enumerate(messages) if each.role == "user" and place not in fixed]
    return users[-1] if users else None


def droppable(units: Sequence[Unit]) -> list[tuple[int, ...]]:
    """Returns groups of messages, by index, that may be dropped, in the order in which to drop them: the older turns,
    each whole, then the oldest units of the last turn, one by one."""
    last = max((unit.turn for unit in units), default=0)
    groups: dict[tuple[int, int], tuple[int, ...]] = {}
    for number, unit in enumerate(units):
        if not unit.pinned:
            key = (unit.turn, number if unit.turn == last else 0)
            groups[key] = (*groups.get(key, ()), *unit.places)
    return [tuple(sorted(groups[key])) for key in sorted(groups)]
