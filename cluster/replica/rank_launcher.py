"""``PlacedRanks``: starts the other ranks of a replica with tensor parallelism, as actors in its placement group.

Serve creates the placement group with the replica: one bundle for each rank, all on one node. The replica is rank 0 and
runs in the first bundle. Serve removes the group when the replica ends.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import TierConfig
from engine.parallel.launch import Invitation, Worker


def bundles(tier: TierConfig) -> list[dict[str, float]]:
    """Returns the bundles of a replica's placement group, one per rank. The first also has the custom resources."""
    share = {name: amount for name, amount in (("CPU", tier.num_cpus), ("GPU", tier.num_gpus)) if amount}
    return [share | tier.resources, *[dict(share) for _ in range(1, tier.engine.tensor_parallel)]]


class Rank:
    """The actor of one rank beside rank 0. It ends when its connection to rank 0 ends, and so when the replica ends."""

    def run(self, invitation: Invitation) -> None:
        """Runs the rank until its process ends; never returns. Ray lets the process see one GPU, so its number is 0."""
        from engine.parallel.worker import (
            serve,  # with torch, which the process that builds the application does without
        )

        serve(invitation, gpu=0)


class PlacedRanks:
    """The launcher of the other ranks, for use in the process of a replica of ``tier``.

    Implements ``engine.parallel.launch.Launcher``.
    """

    def __init__(self, tier: TierConfig) -> None:
        self._tier = tier

    def launch(self, invitation: Invitation) -> Worker:
        """Starts the actor of the rank ``invitation.rank`` in the bundle with that index. Returns its handle without
        waiting for the rank to connect."""
        group = get_current_placement_group()
        assert isinstance(group, PlacementGroup), "a replica with tensor_parallel has a placement group"
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=invitation.rank)
        remote: Any = ray.remote(Rank)
        actor = remote.options(
            num_cpus=self._tier.num_cpus, num_gpus=self._tier.num_gpus, scheduling_strategy=place
        ).remote()
        return _PlacedRank(actor, actor.run.remote(invitation).future())


class _PlacedRank:
    """A rank that was started. Implements ``engine.parallel.launch.Worker``.

    ``end`` is done when the actor has ended.
    """

    def __init__(self, actor: Any, end: Future[None]) -> None:
        self._actor = actor
        self._end = end

    def ended(self) -> bool:
        return self._end.done()

    def kill(self) -> None:
        if not self.ended() and ray.is_initialized():
            ray.kill(self._actor)
