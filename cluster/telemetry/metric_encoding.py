"""``metrics_request``: metrics as the message of OTLP.

Our histograms are three counters, as Prometheus counts them (``engine_metric_definitions``). Here they become OTLP's
own histograms, for receivers that know nothing of Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.sdk.metrics import export

from cluster.telemetry.otlp_encoding import SCOPE

BUCKET, TOTAL, COUNT = "_bucket", "_sum", "_count"
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Buckets:
    """A series of a histogram: counts up to each bound, in any order."""

    description: str = ""
    began_ns: int = 0
    at_ns: int = 0
    total: float = 0.0
    up_to: dict[float, int] = field(default_factory=dict)

    def point(self, labels: Labels) -> HistogramDataPoint:
        """Returns the data point. A bucket that was never counted in is missing, and has what is below it."""
        bounds = sorted(self.up_to)
        below = [0, *(self.up_to[bound] for bound in bounds)]
        counts = [max(0, now - before) for before, now in pairwise(below)]
        if bounds and bounds[-1] == float("inf"):
            bounds.pop()
        else:
            counts.append(0)
        return HistogramDataPoint(
            attributes=_texts(dict(labels)),
            start_time_unix_nano=self.began_ns,
            time_unix_nano=self.at_ns,
            count=sum(counts),
            sum=self.total,
            bucket_counts=counts,
            explicit_bounds=bounds,
        )


def metrics_request(data: export.MetricsData) -> ExportMetricsServiceRequest:
    """Returns the message with all metrics of a process."""
    return ExportMetricsServiceRequest(
        resource_metrics=[
            ResourceMetrics(
                resource=Resource(attributes=_texts(each.resource.attributes)),
                scope_metrics=[
                    ScopeMetrics(scope=InstrumentationScope(name=SCOPE), metrics=list(_metrics(scope.metrics)))
                    for scope in each.scope_metrics
                ],
            )
            for each in data.resource_metrics
        ]
    )


def _metrics(metrics: Sequence[export.Metric]) -> Iterator[Metric]:
    names = {metric.name for metric in metrics}
    stems = {name.removesuffix(BUCKET) for name in names if name.endswith(BUCKET)}
    histograms: dict[str, dict[Labels, _Buckets]] = {stem: {} for stem in stems}
    for metric in metrics:
        stem, _, part = metric.name.rpartition("_")
        if stem in stems and f"_{part}" in (BUCKET, TOTAL, COUNT):
            _collect(metric, f"_{part}", histograms[stem])
        else:
            yield _plain(metric)
    for stem, series in histograms.items():
        points = [buckets.point(labels) for labels, buckets in series.items() if buckets.up_to]
        description = next(iter(series.values())).description if series else ""
        histogram = Histogram(data_points=points, aggregation_temporality=CUMULATIVE)
        yield Metric(name=stem, description=description, histogram=histogram)


def _collect(metric: export.Metric, part: str, series: dict[Labels, _Buckets]) -> None:
    """Adds the points of one of a histogram's three counters to its series. The number follows from the buckets."""
    for point in _points(metric):
        labels = {name: str(value) for name, value in (point.attributes or {}).items()}
        bound = labels.pop("le", None)
        buckets = series.setdefault(tuple(sorted(labels.items())), _Buckets())
        buckets.began_ns, buckets.at_ns = point.start_time_unix_nano or 0, point.time_unix_nano
        if part == BUCKET and bound is not None:
            buckets.up_to[float(bound)] = int(point.value)
        elif part == TOTAL:
            buckets.total = float(point.value)
            buckets.description = (metric.description or "").removesuffix(" Their sum.")


def _plain(metric: export.Metric) -> Metric:
    points = [
        NumberDataPoint(
            attributes=_texts(point.attributes or {}),
            start_time_unix_nano=point.start_time_unix_nano or 0,
            time_unix_nano=point.time_unix_nano,
            as_double=float(point.value),
        )
        for point in _points(metric)
    ]
    made = Metric(name=metric.name, description=metric.description or "")
    if isinstance(metric.data, export.Sum):
        made.sum.CopyFrom(Sum(data_points=points, aggregation_temporality=CUMULATIVE, is_monotonic=True))
    else:
        made.gauge.CopyFrom(Gauge(data_points=points))
    return made


def _points(metric: export.Metric) -> Iterator[export.NumberDataPoint]:
    for point in metric.data.data_points:
        assert isinstance(point, export.NumberDataPoint), "all our instruments are counters and gauges"
        yield point


def _texts(attributes: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=str(value))) for name, value in attributes.items()]
