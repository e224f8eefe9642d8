"""``place``: chooses the replica for a request, by prefix affinity and load. Pure.

The cost of a replica is the number of sequences on it, raised by its KV cache usage, plus ``affinity_weight`` times the
part of the prompt that it would have to prefill. So a replica that has the whole prompt cached is chosen until it has
``affinity_weight`` sequences more than the least loaded one. Affinity alone would overload the replica that has a
popular prefix. Load alone would compute every prefix on every replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that may get the request."""

    replica_id: str
    outstanding: int  # estimated sequences that run or wait there (``Lane.outstanding``)
    matched: float  # fraction of the prompt that is a prefix sent there before, 0 to 1
    memory_used: float  # fraction of its KV blocks that is in use, 0 to 1


def place(candidates: Sequence[Candidate], request_id: str, affinity_weight: float) -> str | None:
    """Returns the id of the replica with the lowest cost; None if there is no candidate.

    A hash of request and replica decides between equal costs. So equal replicas share the load, and the result is
    deterministic.
    """
    if not candidates:
        return None

    def cost(candidate: Candidate) -> tuple[float, int]:
        # An engine whose KV cache is nearly full preempts. Each of its sequences counts up to twice for that.
        queued = candidate.outstanding * (1.0 + candidate.memory_used)
        work = queued + affinity_weight * (1.0 - candidate.matched)
        return work, crc32(f"{request_id}/{candidate.replica_id}".encode())

    return min(candidates, key=cost).replica_id
