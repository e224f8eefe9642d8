"""``refusals``: the signal of requests that were refused for lack of capacity."""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs

MAX_REFUSED = 0.5
"""The part of the requests that counts: beyond, the need would be more than twice the ready replicas."""


def refusals(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas that would have served the refused requests too, as if at most the share
    MAX_REFUSED was refused. None if no request was refused, the flow is unknown or no replica is ready."""
    if evidence.flow is None or not evidence.flow.refused or not evidence.load.ready:
        return None
    refused = min(MAX_REFUSED, evidence.flow.refused)
    return Need(Reason.REFUSALS, evidence.load.ready / (1.0 - refused), evidence.flow.refused, 0.0, "of requests")
