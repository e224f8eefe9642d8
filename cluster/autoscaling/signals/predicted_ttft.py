"""``predicted_ttft``: predicts the time to first token of a request that arrives now."""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.signals.backlog import backlog_s

MARGIN = 0.9
"""Of the objective that the prediction may take."""


def ttft_s(evidence: SignalInputs, replicas: float) -> float:
    """Returns the predicted seconds to a first token with ``replicas``: the queue, the prompt's own prefill, and one
    decode step at the resulting batch size."""
    model = evidence.model
    step_s = model.step(evidence.in_flight / max(1.0, replicas))
    return backlog_s(evidence, replicas) + evidence.own_prefill_s + step_s


def predicted_ttft(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas with which the prediction is at most MARGIN x the objective, limited by
    ``SignalInputs.lasting``. None if no prefill rate was measured, or if no number of replicas is enough: more replicas
    do not speed up a prompt's own prefill."""
    limit = MARGIN * evidence.slo.ttft_p99_s
    least = evidence.own_prefill_s + evidence.model.step(0.0)
    if not evidence.model.prefill_tokens_per_s or least >= limit:
        return None
    queue_s = evidence.model.prefill_s(evidence.queued_prompt_tokens)
    shared_s = queue_s + evidence.in_flight * evidence.model.request_s
    return Need(
        Reason.PREDICTED_TTFT,
        evidence.lasting(shared_s / (limit - least), queue_s),
        ttft_s(evidence, evidence.load.ready),
        limit,
        "s",
    )
