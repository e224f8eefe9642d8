"""``refusals``: the signal of requests that were refused for lack of capacity."""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs

MAX_REFUSED = 0.5
"""The part of the requests that counts: beyond, the need would be more than twice the ready replicas."""


def refusals(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas that would have served the refused requests too, as if at most the share
    MAX_REFUSED was refused: more than the flow needs by the replicas' measurements, by the part that is refused all the
    same. None if no request was refused, the flow is unknown or no replica is ready.

    A multiple of the ready replicas would order more with each refusal until those serve that are ordered already, and
    a single refused request would keep them all.
    """
    flow, mean = evidence.flow, evidence.flow_replicas
    if flow is None or not flow.refused or not evidence.load.ready:
        return None
    needed = float(evidence.load.ready) if mean is None else evidence.staffed(mean, flow)
    refused = min(MAX_REFUSED, flow.refused)
    return Need(Reason.REFUSALS, needed / (1.0 - refused), flow.refused, 0.0, "of requests")
