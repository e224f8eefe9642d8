"""``kv_demand``: compares the KV cache that running and waiting requests will need with the replicas' capacity."""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs


def kv_demand(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas whose KV caches hold the demand within the margin, limited by
    ``SignalInputs.lasting``. None if the capacity is unknown."""
    capacity = evidence.load.kv_capacity_tokens
    if not capacity:
        return None
    demand = evidence.load.kv_demand_tokens
    return Need(
        Reason.KV_DEMAND,
        evidence.lasting(demand / (evidence.fast.kv_margin * capacity), evidence.in_flight_work_s),
        demand / (max(1, evidence.load.ready) * capacity),
        evidence.fast.kv_margin,
        "of the KV cache",
    )
