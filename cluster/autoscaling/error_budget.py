"""``ErrorBudget``: the part of the requests that missed their objectives lately, by the part that may. Pure.

An objective that 99 of 100 requests meet leaves a budget of 1 %, and replicas in reserve are what keeps it. Where next
to nothing is late or refused, a part of that reserve is idle; where the budget is being spent, all of it is needed. The
burn rate says which (Beyer et al., The Site Reliability Workbook, 2018, chapter 5). It can only ever take reserve away
that is there, never order more, so that a wrong counter costs at most what the reserve does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite

from cluster.autoscaling.arrival_rate import ArrivalCounts
from cluster.autoscaling.config import TierScalingConfig
from cluster.autoscaling.snapshot import LatencyReport
from engine.api import Priority

ALLOWED = 0.01
"""The part of the requests that may miss their objectives, which are those of the P99."""

FULL = 0.25
"""The burn rate from which on the budget counts as being spent: what is missing then comes a cold start late."""

PRIOR = 300.0
"""Requests that are taken to have missed just as often as they may, so that a few say little."""


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """The latest requests and those of them that missed their objectives, with weights that decay with their age.
    ``known`` is the part of the window, 0 to 1, of which that is known."""

    requests: float = 0.0
    missed: float = 0.0
    known: float = 0.0

    def observe(self, requests: float, missed: float, elapsed_s: float, window_s: float) -> ErrorBudget:
        """Returns the state after ``elapsed_s`` seconds in which ``missed`` of ``requests`` missed their objectives.
        After ``window_s`` seconds a request counts for about a third. What is no finite number above 0 counts as 0, and
        no more are missed than there are."""
        before, requests = self.unobserved(elapsed_s, window_s), _number(requests)
        return ErrorBudget(
            before.requests + requests,
            before.missed + min(requests, _number(missed)),
            before.known + 1.0 - _kept(elapsed_s, window_s),
        )

    def unobserved(self, elapsed_s: float, window_s: float) -> ErrorBudget:
        """Returns the state after ``elapsed_s`` seconds of which nothing is known."""
        kept = _kept(elapsed_s, window_s)
        return ErrorBudget(kept * self.requests, kept * self.missed, kept * self.known)

    @property
    def burn(self) -> float:
        """The burn rate: 1 where as many requests miss their objectives as may, and while nothing is known."""
        return (self.missed / ALLOWED + PRIOR) / (self.requests + PRIOR)

    @property
    def spent(self) -> float:
        """The part of the budget that is being spent, 0 to 1: all of it from the burn rate ``FULL`` on."""
        return self.spent_by(FULL)

    def spent_by(self, full: float) -> float:
        """Returns the part of the budget that is being spent, 0 to 1, if the burn rate ``full`` is all of it. The part
        of the window that is not known counts as spent."""
        return 1.0 - self.known * (1.0 - min(1.0, self.burn / full))


def observed_budget(
    budget: ErrorBudget,
    before: ArrivalCounts | None,
    now: ArrivalCounts | None,
    uncounted_per_s: float | None,
    window_s: float,
) -> ErrorBudget:
    """Returns the budget after the counters went from ``before`` to ``now``, with a window of ``window_s`` seconds.

    ``uncounted_per_s`` first tokens a second came late beside those that are counted (``uncounted_late``). If that is
    None, or the counters fell, nothing is known of these seconds. None for a counter: it is unknown, and the budget
    stays as it is.
    """
    if before is None or now is None or now.at_s <= before.at_s:
        return budget
    elapsed_s = now.at_s - before.at_s
    arrived, refused, late = now.arrivals - before.arrivals, now.refusals - before.refusals, now.late - before.late
    if uncounted_per_s is None or min(arrived, refused, late) < 0:
        return budget.unobserved(elapsed_s, window_s)
    return budget.observe(arrived, refused + late + uncounted_per_s * elapsed_s, elapsed_s, window_s)


def uncounted_late(
    latencies: Sequence[LatencyReport], tier: TierScalingConfig, prompt_tokens: float, at_s: float, stale_s: float
) -> float | None:
    """Returns the first tokens a second that came late at replicas of an earlier release, which do not count them: by
    the buckets of their fresh and sound reports, those above the objective of their class for a mean prompt of
    ``prompt_tokens``. None if there is no latency, and no replica that counts."""
    late, known = 0.0, False
    for report in latencies:
        slo = None if report.priority is Priority.BATCH else tier.slo(report.priority)
        if slo is None or not _usable(report, at_s, stale_s):
            continue
        known = known or report.counts_late or report.ttft.total > 0
        if not report.counts_late:
            late += report.ttft.above(slo.ttft_s(prompt_tokens)) / report.window_s
    return late if known else None


def _usable(report: LatencyReport, at_s: float, stale_s: float) -> bool:
    fresh = -1.0 <= at_s - report.observed_at_s <= stale_s
    return fresh and report.ttft.valid and isfinite(report.window_s) and report.window_s > 0


def _kept(elapsed_s: float, window_s: float) -> float:
    """Returns the part of a weight that is left after ``elapsed_s`` seconds."""
    return exp(-max(0.0, elapsed_s) / window_s)


def _number(value: float) -> float:
    return value if isfinite(value) and value > 0 else 0.0
