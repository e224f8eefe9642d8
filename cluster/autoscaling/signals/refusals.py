"""``refusals``: the signal of requests that were refused for lack of capacity."""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs

MAX_REFUSED = 0.5
"""The part of the requests that counts: beyond, the need would be more than twice the ready replicas."""


def refusals(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas that would have served the refused requests too, as if at most the share
    MAX_REFUSED was refused; while replicas start, at most the present ones and those. None if no request was refused,
    the flow is unknown or no replica is ready."""
    load, flow = evidence.load, evidence.flow
    if flow is None or not flow.refused or not load.ready:
        return None
    wanted = load.ready / (1.0 - min(MAX_REFUSED, flow.refused))
    # What was ordered for these refusals does not serve yet. Otherwise each second of a cold start would order more.
    most = float(load.ready + load.starting) if load.starting else wanted
    return Need(Reason.REFUSALS, min(wanted, most), flow.refused, 0.0, "of requests")
