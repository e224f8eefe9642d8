"""``measured_slowness``: how many times slower the replicas of a tier are than they report, by what came out of them.

A replica that reports one and a half times its speed has the policy order two thirds of what is needed. But the latency
between tokens and the number of answers that end are measured where they come out, and no replica can be faster than
those. Each step of a replica takes ``a`` seconds, and ``r`` requests a second each add ``w`` seconds of work to its
steps, so the mean latency between tokens is ``t = a + t r w``. If ``a`` and ``w`` are too low by the same factor, that
is ``t / (a + t r w)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.autoscaling.arrival_rate import ArrivalRate
from cluster.autoscaling.histogram import merged
from cluster.autoscaling.replica_model import ReplicaModel, share_of
from cluster.autoscaling.replica_report import WINDOW_S
from cluster.autoscaling.snapshot import LatencyReport
from cluster.autoscaling.tier_load import TierLoad
from engine.api import Priority

MAX_SLOWNESS = 2.0
"""At most this is believed: latencies may be wrong, too."""

TRUSTED = 1.15
"""Below, the difference may be that of windows, and replicas are believed."""

WEIGHT = 0.03
"""Of a second of measurements in what is learnt: half of it is known after some 20 seconds."""


def mean_itl_s(latencies: Sequence[LatencyReport], at_s: float, stale_s: float, least: int) -> float | None:
    """Returns the mean latency between tokens, in seconds, by all fresh and sound reports on the classes that users
    wait for. None if they have fewer than ``least`` latencies, or one does not tell their sum."""
    total = merged(
        report.itl
        for report in latencies
        if report.priority is not Priority.BATCH and -1.0 <= at_s - report.observed_at_s <= stale_s and report.itl.valid
    )
    return total.mean_s if total and total.total >= least else None


def disturbed_at(known_s: float | None, load: TierLoad, at_s: float) -> float:
    """Returns the last instant at which the latencies between tokens were not those of the flow: batch work was among
    them, or a replica that drains. ``known_s`` is what it was; None: unknown, so it counts as ``at_s``, the present."""
    return at_s if known_s is None or load.draining or load.batch_in_flight else known_s


def measured_slowness(
    model: ReplicaModel, flow: ArrivalRate | None, load: TierLoad, itl_s: float | None, undisturbed_s: float
) -> float | None:
    """Returns the factor by which replicas are slower than ``model``, from 1 to MAX_SLOWNESS. None if it cannot be
    known now: a part is unmeasured, the number of replicas has just changed, or the latencies have been those of the
    flow alone (``disturbed_at``) for ``undisturbed_s`` seconds only, less than their window."""
    if itl_s is None or flow is None or not flow.served or not model.step_s or not load.ready:
        return None
    if load.newcomers or undisturbed_s < WINDOW_S:
        return None
    work_s = model.work_s(flow.prompt_tokens, flow.output_tokens) * flow.served / load.ready
    return min(MAX_SLOWNESS, max(1.0, itl_s / (model.step_s + itl_s * work_s)))


def learnt_slowness(known: float, measured: float | None, seconds: float = 1.0) -> float:
    """Returns what is known after a measurement that stands for ``seconds``; None changes nothing."""
    return known if measured is None else known + share_of(WEIGHT, seconds) * (measured - known)
