"""``share``: divides the GPUs of a pool among its tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

KEEP = 1.1
"""The load of a tier counts as this many times what it is while it has fewer replicas than now. To move a replica costs
a cold start."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A tier's request for replicas from its pool. ``need`` is a fractional number of replicas: with ``n`` replicas the
    tier's load is ``need / n``. It has ``now`` replicas, gets ``least`` before any tier gets more, and never more than
    ``wanted``."""

    tier: str
    wanted: int
    least: int
    now: int
    need: float
    weight: float
    gpus: float  # of one replica


def share(claims: Sequence[Claim], gpus: float) -> dict[str, int]:
    """Returns the replicas of each tier, which together have at most ``gpus`` GPUs.

    If there are too few, the next replica goes to the tier whose weighted load, ``weight * need / replicas``, is the
    highest, so that the loads become equal in proportion to the weights. A tier that is further above its objectives
    therefore comes first. Where even the minima do not fit, they are given in the same order. Replicas without GPUs
    cost nothing.
    """
    granted = {claim.tier: 0 for claim in claims}
    if sum(claim.wanted * claim.gpus for claim in claims) <= gpus:
        return {claim.tier: claim.wanted for claim in claims}
    left = _give(claims, granted, gpus, least=True)
    _give(claims, granted, left, least=False)
    return granted


def _give(claims: Sequence[Claim], granted: dict[str, int], gpus: float, *, least: bool) -> float:
    """Gives replicas one by one, up to ``Claim.least`` or ``Claim.wanted``. Returns the GPUs that are left."""
    by_name = {claim.tier: claim for claim in claims}

    def loaded(claim: Claim) -> tuple[float, str]:
        load = claim.weight * max(claim.need, 1e-9) / max(granted[claim.tier], 0.5)
        return -load * (KEEP if granted[claim.tier] < claim.now else 1.0), claim.tier

    heap = [loaded(claim) for claim in claims]
    heapify(heap)
    while heap:
        claim = by_name[heappop(heap)[1]]
        wanted = min(claim.wanted, claim.least) if least else claim.wanted
        if granted[claim.tier] < wanted and claim.gpus <= gpus + 1e-9:
            granted[claim.tier] += 1
            gpus -= claim.gpus
            heappush(heap, loaded(claim))
    return gpus
