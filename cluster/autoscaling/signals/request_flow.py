"""``request_flow``: the replicas that serve the requests as they arrive, by the replicas' own speed.

Queues say how far capacity was short; the flow says which capacity lasts. So it does not add up while replicas start.
"""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_readings import Evidence


def request_flow(evidence: Evidence) -> Need | None:
    """Returns the replicas for the flow, with headroom for chance. None if flow or replicas are unknown."""
    mean = evidence.flow_replicas
    if mean is None or evidence.flow is None:
        return None
    return Need(
        Reason.FLOW,
        evidence.staffed(mean, evidence.flow),
        evidence.flow.rate,
        evidence.flow.rate / mean if mean else 0.0,
        "requests/s",
    )
