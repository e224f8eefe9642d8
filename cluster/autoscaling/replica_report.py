"""``ReplicaReport``: what a replica tells the autoscaler, and its form on the way, a flat mapping of numbers.

Ray Serve carries nothing but numbers by name (``record_autoscaling_stats``), so histograms travel as counts of buckets,
which can be added over replicas, and not as percentiles, which cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import count, takewhile
from math import isfinite
from typing import Any
from zlib import crc32

from cluster.autoscaling.histogram import LatencyHistogram
from cluster.autoscaling.snapshot import ClassCounters, LatencyReport, ReplicaSample
from engine.api import LATENCY_BOUNDS_S, ClassLoad, DueWork, EngineLoad, Priority

WINDOW_S = 30.0
"""The window of latencies: long enough for a P99, and short enough to be of now."""

Buckets = tuple[int, ...]

WAITED_FOR = (Priority.INTERACTIVE, Priority.STANDARD)
"""The classes whose latencies are reported. Batch work has no objective."""

SAMPLE = {
    "queued_prompt_tokens": "queued_prompt_tokens",
    "running": "running_requests",
    "waiting": "waiting_requests",
    "kv_used_tokens": "kv_used_tokens",
    "kv_demand_tokens": "kv_demand_tokens",
    "kv_capacity_tokens": "kv_capacity_tokens",
    "prefill_tokens_per_s": "prefill_tokens_per_s",
    "decode_step_s": "decode_step_s",
    "decode_batch": "decode_batch",
    "chunk_tokens": "chunk_tokens",
    "batch_prompt_tokens": "batch_prompt_tokens",
    "batch_sequences": "batch_requests",
    "batch_kv_tokens": "batch_kv_tokens",
}
"""The fields of ``EngineLoad``, and those of ``ReplicaSample`` that they become."""

WHOLE = ("running_requests", "waiting_requests", "batch_requests")
"""The fields of ``ReplicaSample`` that count."""

DUE = tuple(each.name for each in fields(DueWork))
COUNTERS = tuple(each.name for each in fields(ClassCounters))
BUCKETS = len(LATENCY_BOUNDS_S) + 1
BOUNDS = float(crc32(repr(LATENCY_BOUNDS_S).encode()))
"""Tells by which bounds latencies were counted: buckets travel by their places alone."""

MODEL_DIGITS = 12
"""Hexadecimal digits of a digest that a number of a report holds exactly."""


@dataclass(frozen=True, slots=True)
class WindowedLatencies:
    """Latencies of the last ``window_s`` seconds, counted by LATENCY_BOUNDS_S. ``itl_s`` is the sum of the ITLs, in
    seconds; None: it was not reported."""

    window_s: float = 0.0
    ttft: Mapping[Priority, Buckets] = field(default_factory=dict)
    itl: Buckets = (0,) * BUCKETS
    itl_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """The report of one replica. The instant of ``sample`` is 0; the receiver sets it to the time of receipt.
    ``start_s`` is the number of seconds in which the replica loaded its model; 0: unknown. ``age_s`` is the age of all
    other numbers when they were sent, in seconds. ``due`` is batch work with a deadline. ``counts_late`` is as in
    ``LatencyReport``; that of an earlier release does not."""

    sample: ReplicaSample
    counters: Mapping[Priority, ClassCounters]
    latencies: WindowedLatencies
    start_s: float = 0.0
    age_s: float = 0.0
    due: tuple[DueWork, ...] = ()
    counts_late: bool = False

    def latency_reports(self, source: str, observed_at_s: float) -> tuple[LatencyReport, ...]:
        """Returns the latencies of each class of WAITED_FOR, as those of the replica ``source`` up to the instant
        ``observed_at_s``. The engine does not know the class of an ITL: it is with STANDARD."""
        empty = LatencyHistogram.of((), LATENCY_BOUNDS_S)
        of_all = LatencyHistogram(self.latencies.itl, LATENCY_BOUNDS_S, self.latencies.itl_s)
        return tuple(
            LatencyReport(
                source,
                priority,
                observed_at_s,
                LatencyHistogram(self.latencies.ttft[priority], LATENCY_BOUNDS_S),
                of_all if priority is Priority.STANDARD else empty,
                self.latencies.window_s,
                self.counts_late,
            )
            for priority in WAITED_FOR
        )


def to_numbers(load: EngineLoad, latencies: WindowedLatencies, start_s: float, model: str = "") -> dict[str, float]:
    """Returns the report of a replica as numbers by name, for ``from_numbers``. Counts of 0 are left out: most are.

    ``start_s`` is as in ``ReplicaReport``. ``model`` is a hexadecimal digest of what the replica's speed depends on;
    "": unknown.
    """
    numbers: dict[str, float] = {name: float(getattr(load, name)) for name in SAMPLE}
    numbers.update(start_s=start_s, window_s=latencies.window_s, age_s=load.age_s, bounds=BOUNDS)
    numbers.update(_full_chunk(load))
    if any(counts.late is not None for counts in load.classes.values()):
        numbers["counts_late"] = 1.0
    numbers["model"] = float(int(model[:MODEL_DIGITS] or "0", 16))
    nothing = (0,) * BUCKETS
    for priority in Priority:
        name, counts = priority.name.lower(), load.classes.get(priority, ClassLoad())
        # Whole numbers, whose sums and differences are exact: a counter that seems to fall counts as restarted.
        numbers.update({f"{name}.{each}": float(int(count)) for each in COUNTERS if (count := getattr(counts, each))})
    for priority in WAITED_FOR:
        numbers.update(_bucket_numbers(f"{priority.name.lower()}.ttft", latencies.ttft.get(priority, nothing)))
    numbers.update(_bucket_numbers("itl", latencies.itl))
    if latencies.itl_s is not None:
        numbers["itl_s"] = latencies.itl_s
    for place, work in enumerate(load.batch_due):
        numbers.update({f"due.{place}.{name}": float(getattr(work, name)) for name in DUE})
    return numbers


def _full_chunk(load: EngineLoad) -> dict[str, float]:
    """Returns the prefill rate of a step with a full chunk, with the time in which it reads the weights, and the tokens
    of that chunk, by the engine's fit of its steps; {} until it has computed prompts that took time.

    What the engine measures of its prompts lacks the weights in steps with decodes, which ``ReplicaModel`` takes off as
    well, and is of the chunks at hand, which may be far shorter.
    """
    if not (load.prefill_tokens_per_s and load.step_s and load.prompt_token_s and load.prefill_chunk):
        return {}
    seconds = load.step_s + load.prompt_token_s * max(0, load.prefill_chunk - load.free_prompt_tokens)
    return {"prefill_tokens_per_s": load.prefill_chunk / seconds, "chunk_tokens": float(load.prefill_chunk)}


def from_numbers(numbers: Mapping[str, float]) -> ReplicaReport | None:
    """Returns the report of a replica. None if a number is not finite, or one is missing that is no count: the replica
    is of another release, or its report is damaged. Numbers that are unknown here are ignored. Latencies that a replica
    of another release has counted by other bounds are left out."""
    try:
        if not all(isfinite(value) for value in numbers.values()):
            return None
        sample: dict[str, Any] = {mine: numbers[its] for its, mine in SAMPLE.items()}
        sample.update({name: int(sample[name]) for name in WHOLE}, model=int(numbers.get("model", 0.0)))
        counted = numbers if numbers.get("bounds") == BOUNDS else {}
        return ReplicaReport(
            ReplicaSample(0.0, **sample),
            {priority: _counters(numbers, priority) for priority in Priority},
            WindowedLatencies(
                numbers["window_s"],
                {priority: _buckets(counted, f"{priority.name.lower()}.ttft") for priority in WAITED_FOR},
                _buckets(counted, "itl"),
                counted.get("itl_s"),
            ),
            numbers["start_s"],
            max(0.0, numbers.get("age_s", 0.0)),
            _due(numbers),
            counts_late=bool(numbers.get("counts_late")),
        )
    except (KeyError, TypeError):
        return None


def _counters(numbers: Mapping[str, float], priority: Priority) -> ClassCounters:
    arrivals, refusals, prompt, finished, output, late = (
        numbers.get(f"{priority.name.lower()}.{each}", 0.0) for each in COUNTERS
    )
    return ClassCounters(int(arrivals), int(refusals), prompt, int(finished), output, int(late))


def _due(numbers: Mapping[str, float]) -> tuple[DueWork, ...]:
    places = takewhile(lambda place: f"due.{place}.{DUE[0]}" in numbers, count())
    return tuple(DueWork(*(numbers.get(f"due.{place}.{name}", 0.0) for name in DUE)) for place in places)


def _bucket_numbers(name: str, counts: Buckets) -> dict[str, float]:
    return {f"{name}.{place}": float(count) for place, count in enumerate(counts) if count}


def _buckets(numbers: Mapping[str, float], name: str) -> Buckets:
    return tuple(int(numbers.get(f"{name}.{place}", 0.0)) for place in range(BUCKETS))
