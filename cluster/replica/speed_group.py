"""``speed_group``: names the group of replicas that should have the same speed. The autoscaler learns the speed of each
group by itself."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable

import ray

from cluster.config import TierConfig

ACCELERATOR = "ray.io/accelerator-type"
"""Ray's label of a node for the kind of its accelerators."""


def speed_group(tier: TierConfig, version: str, kernels: Iterable[str], accelerator: str = "") -> str:
    """Returns the name of the group of replicas that have the same speed as one of ``tier``: a hexadecimal digest of
    what the speed depends on.

    That is the ``version`` of its model and engine, its resources, the ``kernels`` that run its steps, and the kinds of
    its processor and accelerator.
    """
    resources = (tier.num_cpus, tier.num_gpus, sorted(tier.resources.items()))
    parts = (version, resources, sorted(kernels), platform.machine(), accelerator)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def accelerator_of_node() -> str:
    """Returns the kind of accelerator of this process' node; "" if it has none, or Ray does not run."""
    if not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_node_labels().get(ACCELERATOR, ""))
