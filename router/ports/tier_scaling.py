"""``TierScaling``: the port to what decides how many replicas the tiers have.

``cluster.autoscaling.stored_tier_scaling`` implements it for Ray Serve. A service without scaled tiers has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ReplicaPin:
    """A number of replicas that an administrator has set for a tier, until ``expires_at`` (Unix seconds)."""

    tier: str
    replicas: int
    expires_at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaBounds:
    """The least and the most replicas that a tier may have."""

    least: int
    most: int


class TierScaling(Protocol):
    """The decisions about the number of each scaled tier's replicas, and the pins by which administrators override
    them. Each coroutine raises StateUnavailableError if the autoscaler's store cannot be reached."""

    @property
    def tiers(self) -> Mapping[str, ReplicaBounds]:
        """The tiers that are scaled, by name, with their bounds."""
        ...

    async def decisions(self) -> Sequence[Mapping[str, object]]:
        """Returns the last decision for each tier, as JSON: ``tier``, ``at`` (Unix seconds), ``target``, ``previous``,
        ``reason``, ``needs``, ``numbers``, and ``text``, which explains it in words."""
        ...

    async def pins(self) -> Sequence[ReplicaPin]:
        """Returns the pins, one for each tier at most, expired ones too."""
        ...

    async def pin(self, pin: ReplicaPin) -> None:
        """Sets the pin of its tier. The caller has checked that its number of replicas is within the tier's bounds. The
        pin counts from the next decision but one on."""
        ...

    async def unpin(self, tier: str) -> bool:
        """Removes the pin of a tier. Returns whether there was one."""
        ...
