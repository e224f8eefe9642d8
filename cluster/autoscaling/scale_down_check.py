"""The check before a scale-down: which objective fewer replicas would miss, and the fewest that meet all. Pure."""

from __future__ import annotations

from typing import NamedTuple

from cluster.autoscaling.decision import Reason
from cluster.autoscaling.predictions import step_s, ttft_s
from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.signals.backlog import backlog_s

MARGIN = 0.9
"""Of the TTFT objective that the prediction may take."""


class Objection(NamedTuple):
    """The reason against scaling to ``replicas``: the predicted ``value`` exceeds ``limit``."""

    reason: Reason
    replicas: int
    value: float
    limit: float


def objection(evidence: SignalInputs, replicas: int) -> Objection | None:
    """Returns the first objective that ``replicas`` would miss. None if they meet all objectives, or nothing is known.

    An objective that a replica misses even with empty queues does not count: more replicas would not help.
    """
    model, fast = evidence.model, evidence.fast
    if model.prefill_tokens_per_s:
        queue_s = backlog_s(evidence, replicas)
        if queue_s > evidence.queue_budget_s:
            return Objection(Reason.BACKLOG, replicas, queue_s, evidence.queue_budget_s)
        limit = MARGIN * evidence.ttft_limit_s
        least = evidence.own_prefill_s + model.step(0.0)
        if least < limit and (predicted := ttft_s(evidence, replicas)) > limit:
            return Objection(Reason.PREDICTED_TTFT, replicas, predicted, limit)
    capacity = evidence.load.kv_capacity_tokens
    if capacity and (demand := evidence.load.kv_demand_tokens / (replicas * capacity)) > fast.kv_margin:
        return Objection(Reason.KV_DEMAND, replicas, demand, fast.kv_margin)
    if model.step_s < evidence.itl_limit_s and (step := step_s(evidence, replicas)) > evidence.itl_limit_s:
        return Objection(Reason.PREDICTED_ITL, replicas, step, evidence.itl_limit_s)
    mean = evidence.flow_replicas
    if mean is not None and mean > replicas:
        return Objection(Reason.FLOW, replicas, mean, replicas)
    return None


def fewest(evidence: SignalInputs, at_least: int, below: int) -> tuple[int, Objection | None]:
    """Returns the fewest replicas from ``at_least`` to ``below`` that meet all objectives, and the objection to one
    replica fewer. Prediction falls as replicas rise, so the number is found by bisection."""
    low, high, against = at_least, below, None
    while low < high:
        middle = (low + high) // 2
        found = objection(evidence, middle)
        if found is None:
            high = middle
        else:
            low, against = middle + 1, found
    return high, against
