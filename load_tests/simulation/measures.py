"""``Measures``: an outcome in a few numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.simulation import Outcome

CLASS_NAMES = ("interactive", "batch")


@dataclass(frozen=True, slots=True)
class ClassMeasures:
    """One class of requests."""

    requests: int
    attainment: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p99_s: float


@dataclass(frozen=True, slots=True)
class Measures:
    """One run. ``attainment`` is the part of the interactive requests within both objectives."""

    policy: str
    requests: int
    served: int
    refused: int
    missed: int  # neither served nor refused before the run ended
    attainment: float
    gpu_hours: float  # from the start of the trace to its end, of all replicas that start, serve or drain
    mean_replicas: float
    peak_replicas: int
    changes: int
    failures: int
    classes: dict[str, ClassMeasures]


def measure(outcome: Outcome) -> Measures:
    """Returns the measures of an outcome."""
    trace, settings = outcome.trace, outcome.settings
    ttft = outcome.first - trace.arrival
    itl = (outcome.end - outcome.first) / np.maximum(trace.output - 1, 1)
    kept = settings.slo.kept(ttft, itl, trace.prompt)
    priority = np.zeros(len(trace), dtype=np.int8) if trace.priority is None else trace.priority
    classes = {
        name: _of_class(ttft[chosen], itl[chosen], kept[chosen])
        for number, name in enumerate(CLASS_NAMES)
        if (chosen := priority == number).any()
    }
    hours = replica_hours(outcome.series, trace.duration)
    served = int(np.isfinite(outcome.end).sum())
    return Measures(
        policy=outcome.policy,
        requests=len(trace),
        served=served,
        refused=outcome.refused,
        missed=len(trace) - served - outcome.refused,
        attainment=classes[CLASS_NAMES[0]].attainment if CLASS_NAMES[0] in classes else float(kept.mean()),
        gpu_hours=hours * settings.profile.gpus,
        mean_replicas=hours * 3600 / trace.duration,
        peak_replicas=max(allocated for at, allocated, _ in outcome.series if at <= trace.duration),
        changes=outcome.changes,
        failures=outcome.failures,
        classes=classes,
    )


def replica_hours(series: Sequence[tuple[float, int, int]], duration: float) -> float:
    """Returns the hours that replicas hold their GPUs from 0 to ``duration`` seconds."""
    times = np.minimum([at for at, _, _ in series] + [duration], duration)
    counts = np.asarray([allocated for _, allocated, _ in series])
    return float((np.diff(times) * counts).sum() / 3600)


def _of_class(ttft: NDArray[np.float64], itl: NDArray[np.float64], kept: NDArray[np.bool_]) -> ClassMeasures:
    return ClassMeasures(len(kept), float(kept.mean()), *percentiles(ttft), *percentiles(itl))


def percentiles(latencies: NDArray[np.float64]) -> tuple[float, float]:
    """The median and the 99th percentile in seconds of those that are known; NaN if none is."""
    known = latencies[np.isfinite(latencies)]
    if not len(known):
        return float("nan"), float("nan")
    p50, p99 = np.percentile(known, [50, 99])
    return float(p50), float(p99)
