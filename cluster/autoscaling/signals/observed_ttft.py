"""``observed_ttft``: the P99 of merged histograms. It lags, and only ever asks for more.

It asks for no more than the present work justifies, since a P99 stays high long after its queue is gone.
"""

from __future__ import annotations

from cluster.autoscaling.decision import Need, Reason
from cluster.autoscaling.histogram import merged
from cluster.autoscaling.signal_inputs import SignalInputs
from engine.api import Priority

MAX_RATIO = 1.5
"""A P99 counts at most as this many times its objective, since latency grows without bound under overload."""

NEWCOMERS = 0.05
"""If more than this part of the ready replicas came within the reports' window, latencies are from before they came."""


def observed_ttft(evidence: SignalInputs) -> Need | None:
    """Returns the number of replicas by the class that misses its TTFT objective by most: ``ready * P99 / objective``,
    at most MAX_RATIO x ``ready``, limited by ``SignalInputs.lasting``. None if all meet theirs, too few latencies are
    known, or many replicas are new."""
    load = evidence.load
    if not load.ready or load.newcomers > NEWCOMERS * load.ready:
        return None
    queue_s = evidence.model.prefill_s(evidence.queued_prompt_tokens)
    found: Need | None = None
    for priority in Priority:
        slo = evidence.tier.slo(priority)
        p99_s = _p99_s(evidence, priority)
        if slo is None or p99_s is None or priority is Priority.BATCH:
            continue
        limit_s = slo.ttft_s(evidence.flow.prompt_tokens if evidence.flow else 0.0)
        if p99_s > limit_s and (found is None or p99_s / limit_s > found.value / found.limit):
            replicas = evidence.lasting(load.ready * min(MAX_RATIO, p99_s / limit_s), queue_s)
            found = Need(Reason.OBSERVED_TTFT, replicas, p99_s, limit_s, f"class {priority.name.lower()}")
    return found


def _p99_s(evidence: SignalInputs, priority: Priority) -> float | None:
    """Returns the P99 of all fresh and sound reports on the class. None if they have too few latencies."""
    total = merged(
        report.ttft
        for report in evidence.latencies
        if report.priority is priority
        and -1.0 <= evidence.at_s - report.observed_at_s <= evidence.fast.stale_s
        and report.ttft.valid
    )
    return total.quantile(0.99) if total and total.total >= evidence.fast.min_latencies else None
