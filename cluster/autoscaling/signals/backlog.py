"""``backlog``: the signal of queued prefill work, in seconds. It reacts before all other signals."""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs


def backlog_s(evidence: SignalInputs, replicas: float) -> float:
    """Returns the seconds that ``replicas`` need to prefill all queued prompts."""
    return evidence.model.prefill_s(evidence.queued_prompt_tokens) / max(1.0, replicas)


def backlog(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas whose queues would stay within the TTFT objective's budget, limited by
    ``SignalInputs.lasting``. None if no prefill rate was measured."""
    if not evidence.model.prefill_tokens_per_s:
        return None
    queue_s = evidence.model.prefill_s(evidence.queued_prompt_tokens)
    return Need(
        Reason.BACKLOG,
        evidence.lasting(queue_s / evidence.queue_budget_s, queue_s),
        backlog_s(evidence, evidence.load.ready),
        evidence.queue_budget_s,
        "s",
    )
