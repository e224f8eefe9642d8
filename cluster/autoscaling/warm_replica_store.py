"""``WarmReplicaStore``: which replicas are in the warm pools, in the key-value store of Ray's head (GCS).

The autoscaler says so to the routers, which give a warm replica no request while another one can take it. Serve knows
nothing of it: for Serve, a warm replica runs like any other.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping

from ray.exceptions import RayError, RpcError
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from cluster.autoscaling.decision_store import NAMESPACE

logger = logging.getLogger(__name__)

FOLLOW_S = 0.5
"""Between two looks of a router: so soon a warm replica serves after the decision."""

WarmReplicas = Mapping[str, frozenset[str]]
"""The ids of the warm replicas by tier."""


class WarmReplicaStore:
    """The warm replicas of one application. The methods block. They raise RayError, RpcError or OSError if Ray's
    key-value store fails."""

    def __init__(self, application: str) -> None:
        self._key = f"autoscaling/{application}/warm"

    def write(self, warm: WarmReplicas) -> None:
        """Stores the warm replicas of all tiers."""
        document = {tier: sorted(replicas) for tier, replicas in warm.items()}
        _internal_kv_put(self._key, json.dumps(document), overwrite=True, namespace=NAMESPACE)

    def read(self) -> WarmReplicas:
        """Returns the warm replicas by tier; {} before the first decision, and for what cannot be read, such as another
        release's: then all replicas serve."""
        return read_warm(_internal_kv_get(self._key, namespace=NAMESPACE) or b"{}")


def read_warm(stored: bytes) -> WarmReplicas:
    """Returns the stored warm replicas by tier; {} if they cannot be read."""
    try:
        return {str(tier): frozenset(map(str, replicas)) for tier, replicas in json.loads(stored).items()}
    except (AttributeError, TypeError, ValueError):
        return {}


async def follow_warm_replicas(store: WarmReplicaStore, on_warm: Callable[[WarmReplicas], None]) -> None:
    """Calls ``on_warm`` with the warm replicas each FOLLOW_S seconds, until it is cancelled. While Ray's store fails,
    the last ones stay; the first failure in a row is logged."""
    failing = False
    while True:
        try:
            on_warm(await asyncio.to_thread(store.read))
            failing = False
        except (RayError, RpcError, OSError) as error:
            if not failing:
                logger.warning("warm replicas cannot be read: Ray's store fails: %s", type(error).__name__)
            failing = True
        await asyncio.sleep(FOLLOW_S)
