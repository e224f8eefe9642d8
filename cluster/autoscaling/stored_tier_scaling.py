"""``StoredTierScaling``: the router's port ``TierScaling``, by way of the store that the autoscaler writes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ray.exceptions import RayError, RpcError

from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.snapshot import Pin
from router.ports.state_store import StateUnavailableError
from router.ports.tier_scaling import ReplicaBounds, ReplicaPin

T = TypeVar("T")


class StoredTierScaling:
    """The scaling of ``tiers``, those of the application that ``store`` belongs to. Implements ``TierScaling``."""

    def __init__(self, store: DecisionStore, tiers: Mapping[str, ReplicaBounds]) -> None:
        self._store = store
        self.tiers: Mapping[str, ReplicaBounds] = tiers

    async def decisions(self) -> Sequence[Mapping[str, object]]:
        return await _off_loop(self._store.read)

    async def pins(self) -> Sequence[ReplicaPin]:
        pins = await _off_loop(self._store.pins)
        return [ReplicaPin(pin.tier, pin.replicas, pin.expires_at_s, pin.why) for pin in pins]

    async def pin(self, pin: ReplicaPin) -> None:
        new = Pin(pin.tier, pin.replicas, pin.expires_at, pin.why)
        await _off_loop(lambda: self._store.set_pin(new))

    async def unpin(self, tier: str) -> bool:
        return await _off_loop(lambda: self._store.delete_pin(tier))


async def _off_loop(call: Callable[[], T]) -> T:
    """Returns the result of ``call``, which may block, from a thread. Raises StateUnavailableError."""
    try:
        return await asyncio.to_thread(call)
    except (RayError, RpcError, OSError) as error:
        raise StateUnavailableError(f"Ray's key-value store: {type(error).__name__}") from error
