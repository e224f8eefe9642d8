"""``RayStageMetrics``: how long requests are in each stage, as Ray metrics, which Prometheus scrapes from every node.

======================================  ======================================  ======================================
counter                                 labels                                  unit
======================================  ======================================  ======================================
ray_manta_stage_seconds_bucket_total    operation, stage, le                    stages that took up to ``le`` seconds
ray_manta_stage_seconds_sum_total       operation, stage                        seconds
ray_manta_stage_seconds_count_total     operation, stage                        stages
======================================  ======================================  ======================================

``router.ports.stage_metrics`` says what begins and ends a ``stage``. ``operation`` is generation, embeddings or
moderation. A router has at most 20 series, and one for each objective at an unusual bound, for each of 15 stages: nine
of generation, three of each other operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cluster.telemetry.bounded_label import OTHER
from cluster.telemetry.summed_instruments import SummedInstruments
from engine.api import LATENCY_BOUNDS_S
from router.ports.stage_metrics import STREAM, Operation, Took
from router.ports.trace_names import SpanName

STAGES = (
    SpanName.ACCESS,
    SpanName.PROMPT,
    SpanName.ROUTE,
    SpanName.LIMITS,
    SpanName.SAFETY,
    SpanName.CACHE,
    SpanName.ANSWER,
    SpanName.MODERATE,
    STREAM,
)
"""The values of the label ``stage``. Any other is counted as ``other``."""
STAGES_OF: Mapping[Operation, tuple[str, ...]] = {
    Operation.GENERATION: STAGES,
    Operation.EMBEDDINGS: (SpanName.ACCESS, SpanName.LIMITS, SpanName.SAFETY, SpanName.ANSWER),
    Operation.MODERATION: (SpanName.ACCESS, SpanName.LIMITS, SpanName.SAFETY),
}
"""The stages that requests of each operation have."""


def stage_bounds(objectives_s: Iterable[float]) -> list[float]:
    """Returns the upper bounds of the buckets, in seconds."""
    return sorted({*LATENCY_BOUNDS_S, *objectives_s})


class RayStageMetrics:
    """Counts the times of stages of the router in this process. A bucket ends at each of ``objectives_s`` (seconds),
    too. Implements ``StageMetrics``."""

    def __init__(self, instruments: SummedInstruments, objectives_s: Iterable[float] = ()) -> None:
        bounds = stage_bounds(objectives_s)
        stages = instruments.histogram(
            "manta_stage_seconds", "Times of the stages of requests.", bounds, ("operation", "stage")
        )
        self._observe: Mapping[Operation, Mapping[str, Callable[[float], None]]] = {
            operation: {
                str(stage): stages.series({"operation": operation.value, "stage": str(stage)}).observe
                for stage in (*STAGES_OF[operation], OTHER)
            }
            for operation in Operation
        }

    def of(self, operation: Operation) -> Took:
        observe = self._observe[operation]
        other = observe[OTHER]

        def took(stage: str, seconds: float) -> None:
            observe.get(stage, other)(seconds)

        return took
