"""``request_flow``: the signal of the arrival rate, by the replicas' measured speed.

Queues show how much capacity was missing; the flow shows how much is needed in the long run. It does not accumulate
while replicas start.
"""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs


def request_flow(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas for the flow, with headroom for random peaks. None if the flow or the replicas'
    speed is unknown."""
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
