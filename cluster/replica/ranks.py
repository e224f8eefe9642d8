"""``PlacedRanks``: the actors that run the other ranks of a replica with tensor parallelism, in its placement group.

Serve makes the group with the replica, one bundle for each rank on one node, runs the replica in the first, and removes
the group with it.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import TierConfig
from engine.parallel.launch import Invitation, Worker
from engine.parallel.worker import serve


def bundles(tier: TierConfig) -> list[dict[str, float]]:
    """The bundles of a replica's placement group: the same for each rank, and the tier's own resources in the first."""
    share = {name: amount for name, amount in (("CPU", tier.num_cpus), ("GPU", tier.num_gpus)) if amount}
    return [share | tier.resources, *[dict(share) for _ in range(1, tier.engine.tensor_parallel)]]


class Rank:
    """An actor that is one rank. It ends when the connection to rank 0 does, and so with the replica."""

    def run(self, invitation: Invitation) -> None:
        """Does not return: the process ends first. Ray shows it one GPU, its own."""
        serve(invitation, gpu=0)


class PlacedRanks:
    """Implements ``Launcher`` for the replica of ``tier`` in whose process it is used."""

    def __init__(self, tier: TierConfig) -> None:
        self._tier = tier

    def launch(self, invitation: Invitation) -> Worker:
        group = get_current_placement_group()
        assert isinstance(group, PlacementGroup), "a replica with tensor_parallel has a placement group"
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=invitation.rank)
        remote: Any = ray.remote(Rank)
        actor = remote.options(
            num_cpus=self._tier.num_cpus, num_gpus=self._tier.num_gpus, scheduling_strategy=place
        ).remote()
        return _PlacedRank(actor, actor.run.remote(invitation).future())


class _PlacedRank:
    """``end`` is done when the actor has ended."""

    def __init__(self, actor: Any, end: Future[None]) -> None:
        self._actor = actor
        self._end = end

    def ended(self) -> bool:
        return self._end.done()

    def kill(self) -> None:
        if not self.ended() and ray.is_initialized():
            ray.kill(self._actor)
