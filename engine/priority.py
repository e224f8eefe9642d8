"""``Priority``: the scheduling classes of requests, and their order."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """The scheduling class of a request. A request of a higher class is scheduled first; while it waits, a request
    rises by one class every ``EngineConfig.ageing_s`` seconds. As with vLLM's ``priority``, a lower number is earlier.
    """

    INTERACTIVE = -1  # a user reads the answer as it is written
    STANDARD = 0
    BATCH = 1  # runs on capacity that the other classes leave


def rank_of(priority: Priority, surplus: bool) -> int:
    """Returns the place of a class in the order of scheduling; the lowest is first. The classes of surplus requests
    (``GenerationRequest.surplus``) come after all others, in the same order."""
    return priority + len(Priority) * surplus
