"""Where requests wait for the first replica of a tier that is at zero."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ray import serve

from cluster.autoscaling.config import WaitingRoomConfig
from cluster.autoscaling.waiting_room_reporter import WaitingRoomReporter
from cluster.autoscaling.waiting_room_store import WaitingRoomStore
from cluster.lanes.cold_start_room import ColdStartRoom
from router.ports.state_store import StateUnavailableError
from router.ports.tier_scaling import TierScaling


def cold_start_rooms(
    configs: Mapping[str, WaitingRoomConfig], application: str, scaling: TierScaling | None
) -> dict[str, ColdStartRoom]:
    """Returns this router's waiting room for each tier that may be at zero, by tier name. ``configs`` has the settings
    of these tiers. ``scaling`` knows the length of a cold start; None: nothing does."""
    if not configs:
        return {}
    store, router = WaitingRoomStore(application), serve.get_replica_context().replica_id.unique_id
    return {
        name: ColdStartRoom(
            name, config, WaitingRoomReporter(store, name, router).report, partial(cold_start_s, scaling, name)
        )
        for name, config in configs.items()
    }


async def cold_start_s(scaling: TierScaling | None, tier: str) -> float:
    """Returns the seconds of a cold start of ``tier``, as in the last decision of the autoscaler; 0 if ``scaling`` is
    None or the decision cannot be read."""
    try:
        rows = [] if scaling is None else await scaling.decisions()
    except StateUnavailableError:
        return 0.0
    numbers = next((row["numbers"] for row in rows if row["tier"] == tier), None)
    return float(numbers.get("cold_start_s", 0.0)) if isinstance(numbers, dict) else 0.0
