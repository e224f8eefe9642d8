"""What a replica tells Prometheus of its engine."""

from __future__ import annotations

import pytest

from cluster.autoscaling.config import SloConfig
from cluster.telemetry.bounded_label import OTHER, bounded
from cluster.telemetry.engine_metric_definitions import KERNELS, MISSES, PHASES
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.replica_metrics import ReplicaMetrics
from engine.api import Priority
from engine.kv.prefix import Miss
from engine.metrics import SECONDS, EngineMetrics, Phase, Recorder
from tests.cluster.engine_stats import STATS
from tests.cluster.ray_metrics import RecordedMetrics, record
from tests.engine.sequences import sequence


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


def read(recorder: Recorder, waiting: dict[tuple[Priority, str], int] | None = None) -> EngineMetrics:
    return recorder.snapshot(STATS, waiting or {})


def a_recorder() -> Recorder:
    recorder = Recorder()
    recorder.kernels = "compiled"
    return recorder


def test_a_histogram_counts_each_value_in_every_bucket_that_it_fits(recorded: RecordedMetrics) -> None:
    recorder, metrics = a_recorder(), ReplicaMetrics("fast", "v1")
    recorder.step(3, 0.3)
    recorder.step(5, 100.0)
    recorder.step(5, 1000.0)
    metrics.publish(read(recorder))

    def bucket(bound: str) -> float:
        return recorded.value("ray_manta_step_seconds_bucket_total", tier="fast", le=bound)

    assert [bucket(bound) for bound in ("0.25", "0.5", "60.0", "120.0", "+Inf")] == [0, 1, 1, 2, 3]
    assert recorded.value("ray_manta_step_seconds_count_total", tier="fast") == 3
    assert recorded.value("ray_manta_step_seconds_sum_total", tier="fast") == pytest.approx(1100.3)
    assert recorded.value("ray_manta_batch_sequences_bucket_total", tier="fast", le="4.0") == 1


def test_only_what_was_added_since_the_last_publication_is_added(recorded: RecordedMetrics) -> None:
    recorder, metrics = a_recorder(), ReplicaMetrics("fast", "v1")
    for _ in range(3):
        metrics.publish(read(recorder))
    assert recorded.value("ray_manta_engine_generated_tokens_total", tier="fast") == 30
    assert recorded.value("ray_manta_engine_requests_total", tier="fast", outcome="finished") == 4
    assert recorded.value("ray_manta_engine_preemptions_total", tier="fast") == 2

    recorder.refuse("acme", Priority.STANDARD)
    metrics.publish(read(recorder))
    assert recorded.value("ray_manta_engine_requests_total", tier="fast", outcome="refused") == 1


def test_waits_and_first_tokens_are_told_apart_by_class(recorded: RecordedMetrics) -> None:
    recorder, metrics = a_recorder(), ReplicaMetrics("fast", "v1")
    one = sequence("a", [1, 2, 3])
    recorder.admitted(one)
    recorder.tokens_emitted([one], one.arrived + 0.2)
    metrics.publish(read(recorder, {(Priority.BATCH, "acme"): 2}))

    name = one.priority.name.lower()
    assert recorded.value("ray_manta_ttft_seconds_bucket_total", tier="fast", le="0.25", **{"class": name}) == 1
    assert recorded.value("ray_manta_queue_wait_seconds_count_total", tier="fast", **{"class": name}) == 1
    assert recorded.value("ray_manta_prompt_length_tokens_sum_total", tier="fast") == 3
    waiting = {each: recorded.value("ray_manta_engine_waiting", tier="fast", **{"class": each}) for each in CLASSES}
    assert waiting == {"interactive": 0, "standard": 0, "batch": 2}


def test_gauges_have_the_current_values(recorded: RecordedMetrics) -> None:
    metrics = ReplicaMetrics("fast", "v1")
    metrics.publish(read(a_recorder()))

    assert recorded.value("ray_manta_engine_running", tier="fast") == 3
    blocks = [recorded.value("ray_manta_kv_blocks", tier="fast", state=each) for each in ("total", "used", "cached")]
    assert blocks == [100, 40, 10]
    (info,) = [dict(labels) for (name, labels) in recorded.values if name == "ray_manta_build_info"]
    assert (info["tier"], info["kernels"], info["model_version"]) == ("fast", "compiled", "v1")
    assert info["release"]


def test_a_tenant_makes_no_series(recorded: RecordedMetrics) -> None:
    recorder, metrics = a_recorder(), ReplicaMetrics("fast", "v1")
    for n in range(1000):
        recorder.ended(sequence(f"r{n}", [1], tenant=f"tenant-{n}"), 1, finished=True)
    metrics.publish(read(recorder, {(Priority.STANDARD, f"tenant-{n}"): 1 for n in range(1000)}))

    assert len(recorded.values) < 300
    assert not [labels for _, labels in recorded.values if "tenant-" in str(labels)]


def test_an_unknown_value_of_a_label_is_counted_as_other(recorded: RecordedMetrics) -> None:
    recorder = Recorder()
    recorder.kernels = "from-elsewhere"
    ReplicaMetrics("fast", "v1").publish(read(recorder))

    (info,) = [dict(labels) for (name, labels) in recorded.values if name == "ray_manta_build_info"]
    assert info["kernels"] == OTHER
    assert bounded("torch", KERNELS) == "torch"


def test_every_reason_and_phase_of_the_engine_is_known() -> None:
    assert {each.value for each in Miss} == MISSES
    assert {each.value for each in Phase} == PHASES


def test_the_usual_objectives_are_bounds_of_buckets() -> None:
    slo = SloConfig()
    assert {slo.ttft_p99_s, slo.itl_p99_s} <= set(SECONDS)


CLASSES = ("interactive", "standard", "batch")


def test_each_series_says_of_which_application_it_is(recorded: RecordedMetrics) -> None:
    ReplicaMetrics("fast", "v1", RayInstruments("second")).publish(read(a_recorder()))
    assert set(recorded.applications.values()) == {"second"}
    assert recorded.applications.keys() == recorded.labels.keys()
