"""What Prometheus reads from a running cluster."""

from __future__ import annotations

import httpx
import pytest
import ray

from cluster.telemetry.engine_metric_definitions import COUNTERS, GAUGES
from tests.cluster.graph import APP, Graph, eventually

pytestmark = pytest.mark.slow

UNUSED = {
    "manta_engine_preemptions",
    "manta_engine_repairs",
    "manta_engine_draft_tokens",
    "manta_engine_accepted_tokens",
}
"""Counters that a short load without a draft model does not touch. Ray exports a counter once something was added."""


def scrape() -> str:
    """The metrics of the only node."""
    (node,) = ray.nodes()
    return httpx.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10).text


def samples(text: str, name: str) -> list[tuple[str, float]]:
    """The series of a metric: labels as text, and value."""
    rows = [line.rpartition(" ") for line in text.splitlines() if line.startswith(f"{name}{{")]
    return [(series, float(value)) for series, _, value in rows]


def ttft_counts(text: str) -> tuple[float, float]:
    """The answers of the tier fast that are counted, and those in the bucket without an end."""
    counts = samples(text, "ray_manta_ttft_seconds_count_total")
    buckets = [each for each in samples(text, "ray_manta_ttft_seconds_bucket_total") if 'le="+Inf"' in each[0]]
    count, highest = (sum(value for series, value in found if "fast" in series) for found in (counts, buckets))
    return count, highest


def test_prometheus_reads_the_engines_metrics_of_every_tier(graph: Graph) -> None:
    for _ in range(2):  # the second prompt finds the first in the prefix cache
        answer = graph.post(
            "/v1/chat/completions",
            {"model": "fast", "max_tokens": 8, "messages": [{"role": "user", "content": "Count to twenty. " * 8}]},
        )
        assert answer.status_code == 200, answer.text
    counted = {f"ray_{name}_total" for name in COUNTERS if name not in UNUSED}
    expected = counted | {f"ray_{name}" for name in GAUGES}

    def missing() -> set[str]:
        text = scrape()
        return {name for name in expected if not any('tier="fast"' in series for series, _ in samples(text, name))}

    eventually(lambda: not missing(), "every metric is exported", 90)
    ours = ("ray_manta_breaker_open", "ray_manta_journal_bytes")  # the router's, which exports them in its own time
    text = ""

    def exported() -> bool:
        nonlocal text
        text = scrape()  # Ray shows a gauge once for each report, so the next one may lack it
        count, highest = ttft_counts(text)
        return all(samples(text, name) for name in ours) and count == highest >= 2

    eventually(exported, "the router's are exported too, and both answers are counted", 60)
    assert {value for _, value in samples(text, "ray_manta_breaker_open")} == {0}
    assert {value for series, value in samples(text, "ray_manta_journal_bytes") if 'log="audit"' in series} == {0}
    # Replicas of earlier tests may still be exported.

    def built() -> bool:
        infos = [series for series, _ in samples(scrape(), "ray_manta_build_info") if 'tier="fast"' in series]
        return any('kernels="compiled' in info for info in infos)

    eventually(built, "the build of the tier is exported", 30)
    ours_alone = f'application="{APP}"'  # of the services of earlier tests there are series too
    series = [line for line in text.splitlines() if line.startswith("ray_manta_") and ours_alone in line]
    assert 0 < len(series) < 2000
