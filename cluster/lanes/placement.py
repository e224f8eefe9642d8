"""``place``: the choice of a replica for a request, prefix affinity weighed against load. Pure.

The cost of a replica is the work already queued on it plus the prefill this request would still need there, both in
units of "one request": a replica that holds the whole prefix saves ``affinity_weight`` requests' worth of work, so it
wins until its queue is that much longer than the shortest one. Affinity alone overloads the replica with the popular
prefix; load alone computes every prefix everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Candidate:
    """One replica as the placement sees it."""

    replica_id: str
    outstanding: int  # requests running or waiting there, or sent and not yet counted there
    matched: float  # part of the prompt whose prefix this replica has seen, 0 to 1
    memory_used: float  # part of the KV blocks in use, 0 to 1


def place(candidates: Sequence[Candidate], request_id: str, affinity_weight: float) -> str | None:
    """The id of the replica with the least cost; None if there is no candidate.

    Ties are broken by a hash of the request and the replica, so that equal replicas share the load and the same
    snapshot always gives the same answer.
    """
    if not candidates:
        return None

    def cost(candidate: Candidate) -> tuple[float, int]:
        # A nearly full pool preempts: every request there is worth up to one more.
        queued = candidate.outstanding * (1.0 + candidate.memory_used)
        work = queued + affinity_weight * (1.0 - candidate.matched)
        return work, crc32(f"{request_id}/{candidate.replica_id}".encode())

    return min(candidates, key=cost).replica_id
