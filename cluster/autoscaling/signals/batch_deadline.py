"""``batch_deadline``: the replicas that batch work needs to be finished in time."""

from __future__ import annotations

from math import isfinite

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.snapshot import BatchWork

MARGIN = 1.1
"""Batch work counts as this many times what it is estimated to be."""


def batch_deadline(evidence: SignalInputs, floor: float) -> Need | None:
    """Returns the number of replicas for the flow of other classes and the batch work. None if ``floor`` replicas
    finish the batch work in time, there is none, or the speed of the replicas is unknown.

    Work is done in the order of deadlines. The rate of work is the highest, over all deadlines, of the work due by a
    deadline / the time left until then. The time left counts as at least a cold start, since new replicas do not help
    sooner.
    """
    model = evidence.model
    due: list[BatchWork] = sorted(filter(_sound, evidence.batch_work), key=lambda work: work.deadline_at_s)
    if not due or not model.known:
        return None
    work_s = 0.0
    most = (0.0, 0.0, 0.0)  # rate, work and time left of the deadline that needs the highest rate
    for work in due:
        work_s += model.work_s(work.prompt_tokens, work.output_tokens)
        left_s = max(evidence.cold_start_s, work.deadline_at_s - evidence.at_s)
        most = max(most, (MARGIN * work_s / left_s, work_s, left_s))
    replicas = most[0] / model.busy_limit(evidence.itl_limit_s) + (evidence.flow_replicas or 0.0)
    if replicas <= floor:
        return None
    return Need(Reason.BATCH_DEADLINE, replicas, most[1], most[2], "s")


def _sound(work: BatchWork) -> bool:
    numbers = (work.deadline_at_s, work.prompt_tokens, work.output_tokens)
    return all(map(isfinite, numbers)) and min(numbers) >= 0
