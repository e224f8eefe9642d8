"""``FloodGate``: how many requests of a flood are looked at. The others are refused before their bodies are read.

A refusal that was decided on costs the router most of a millisecond, and a flood sends hundreds a second: the other
tenants' requests would wait for the event loop. So of a sender that was refused, only those are looked at that may find
room. They stand for the others, since nothing but their order tells them apart. Lives as long as the router.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

LOOKS_PER_S = 20.0
"""Requests of a sender that are looked at in a second even if all of them are refused."""
LOOKS_PER_SERVED = 4.0
"""Requests that are looked at for each one that was served. A sender of whose requests more than one in four is served
is never turned away."""
MOST_LOOKS = 20.0
"""The looks that a sender may save up."""
MOST_SENDERS = 1024
"""Senders that are remembered. Those whose last refusal is longest ago are forgotten, and looked at again."""

Sender = tuple[str, str]
"""A tenant and the id of a key: a flood by one key turns none away of another key."""

T = TypeVar("T")


@dataclass(slots=True)
class Looks(Generic[T]):
    """The looks that a sender has ``left`` at the instant ``at``, and its latest refusal."""

    left: float
    at: float
    refusal: T


class FloodGate(Generic[T]):
    """The looks of the senders that were refused, with the latest refusal of each, which is of any type T. Instants are
    seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._senders: OrderedDict[Sender, Looks[T]] = OrderedDict()  # longest not refused first

    def __len__(self) -> int:
        """Returns the number of senders that are remembered."""
        return len(self._senders)

    def refused(self, sender: Sender, refusal: T, now: float) -> None:
        """Records that a request was looked at and refused."""
        looks = self._senders.setdefault(sender, Looks(MOST_LOOKS, now, refusal))
        looks.refusal = refusal
        self._senders.move_to_end(sender)
        if len(self._senders) > MOST_SENDERS:
            self._senders.popitem(last=False)

    def served(self, sender: Sender) -> None:
        """Records that a request was admitted, or needs no engine."""
        if (looks := self._senders.get(sender)) is not None:
            looks.left = min(MOST_LOOKS, looks.left + LOOKS_PER_SERVED)

    def latest(self, sender: Sender) -> T | None:
        """Returns the latest refusal of a sender; None: none is remembered."""
        looks = self._senders.get(sender)
        return None if looks is None else looks.refusal

    def look(self, sender: Sender, now: float) -> bool:
        """Takes a look at a request of ``sender``. Returns False if it has none left."""
        looks = self._senders.get(sender)
        if looks is None:
            return True
        looks.left = min(MOST_LOOKS, looks.left + LOOKS_PER_S * max(0.0, now - looks.at))
        looks.at = now
        if looks.left < 1.0:
            return False
        looks.left -= 1.0
        return True
