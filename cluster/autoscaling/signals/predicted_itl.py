"""``predicted_itl``: predicts the inter-token latency when all waiting requests run too."""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs


def step_s(evidence: SignalInputs, replicas: float) -> float:
    """Returns the predicted seconds of a decode step when ``replicas`` replicas share all requests."""
    return evidence.model.step(evidence.in_flight / max(1.0, replicas))


def predicted_itl(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas whose steps would be within the margin of the ITL objective, limited by
    ``SignalInputs.lasting``. None if the dependence of step time on batch size is unknown, or no number of replicas is
    enough."""
    limit, model = evidence.itl_limit_s, evidence.model
    if not model.request_s or model.step_s >= limit:
        return None
    return Need(
        Reason.PREDICTED_ITL,
        evidence.lasting(evidence.in_flight * model.request_s / (limit - model.step_s), evidence.in_flight_work_s),
        step_s(evidence, evidence.load.ready),
        limit,
        "s",
    )
