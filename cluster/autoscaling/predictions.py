"""Predictions at another number of replicas: the time to the first token of a request that comes now, and the time of a
decode step when all waiting requests run. The check before a lowering and ``manta scale explain`` use them. Pure."""

from __future__ import annotations

from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.signals.backlog import backlog_s


def step_s(evidence: SignalInputs, replicas: float) -> float:
    """Returns the predicted seconds of a decode step when ``replicas`` replicas share all requests."""
    return evidence.model.step(evidence.in_flight / max(1.0, replicas))


def ttft_s(evidence: SignalInputs, replicas: float) -> float:
    """Returns the predicted seconds to a first token with ``replicas``: the queue, the prompt's own prefill, and one
    decode step at the resulting batch size."""
    return backlog_s(evidence, replicas) + evidence.own_prefill_s + step_s(evidence, replicas)
