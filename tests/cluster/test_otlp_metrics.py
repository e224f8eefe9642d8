"""The metrics are sent by OTLP too, where the config says so: the same numbers, to real receivers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import httpx
import pytest
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.dependency_gauges import Dependencies, DependencyGauges
from cluster.telemetry.make_otlp_instruments import make_otlp_instruments
from cluster.telemetry.otlp_instruments import OtlpInstruments
from cluster.telemetry.replica_metrics import ReplicaMetrics
from cluster.telemetry.usage_metrics import RayUsageMetrics
from engine.metrics import SECONDS, Recorder
from load_tests.overhead.factory import StubFactory
from router.memory_safety_store import MemorySafetyStore
from router.ports.clock import SystemClock
from router.ports.limit_store import LimitName
from router.ports.usage_metrics import UsageSample
from tests.cluster.engine_stats import STATS
from tests.cluster.graph import eventually
from tests.cluster.otlp_receiver import Received, grpc_receiver, http_receiver
from tests.cluster.ray_metrics import RecordedMetrics, record


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


RESOURCE = {"service.name": "manta", "service.instance.id": "router-1", "manta.role": "router"}


def sender(received: Received, **settings: object) -> OtlpInstruments:
    telemetry = {
        "protocol": "http" if "/v1/" in received.metrics_endpoint else "grpc",
        "headers": {"Authorization": "Bearer s3cret"},
        "metrics": {"endpoint": received.metrics_endpoint, "interval_s": 600},
        **settings,
    }
    made = make_otlp_instruments(TelemetryConfig.model_validate(telemetry), "router", "router-1", "second")
    assert made is not None
    return made


@pytest.mark.parametrize("receiver", [http_receiver, grpc_receiver])
def test_counters_and_gauges_arrive_with_the_numbers_that_prometheus_reads(
    receiver: Callable[[], object], recorded: RecordedMetrics
) -> None:
    with receiver() as received:  # type: ignore[attr-defined]
        sent = sender(received)
        usage = RayUsageMetrics(sent)
        for _ in range(2):
            usage.count(UsageSample("acme", "fast", "finished", 30, 10, 7, 0.25))
        usage.refused("acme", "key", LimitName.REQUESTS_PER_MINUTE)
        DependencyGauges(Dependencies(None, MemorySafetyStore(SystemClock()).audit, {}), sent).publish()
        sent.close()
    labels = {"tenant": "acme", "tier": "fast"}
    assert received.number("manta_requests", **labels, outcome="finished").as_double == 2
    assert received.number("manta_tokens", **labels, direction="output").as_double == 14
    assert received.number("manta_cost", **labels).as_double == 0.5
    assert received.metrics["manta_requests"].sum.is_monotonic
    assert received.number("manta_journal_bytes", log="audit").as_double == 0
    assert recorded.value("ray_manta_tokens_total", **labels, direction="output") == 14
    assert received.resources == [{**RESOURCE, "manta.application": "second"}]
    assert received.headers[0]["authorization"] == "Bearer s3cret"


def test_the_histograms_of_an_engine_arrive_as_histograms(recorded: RecordedMetrics) -> None:
    recorder = Recorder()
    for seconds, sequences in ((0.3, 3), (0.3, 3), (1000.0, 5)):
        recorder.step(sequences, seconds)
    with http_receiver() as received:
        sent = sender(received)
        metrics = ReplicaMetrics("fast", "v1", sent)
        metrics.publish(recorder.snapshot(STATS, {}))
        recorder.step(3, 0.3)
        metrics.publish(recorder.snapshot(STATS, {}))
        sent.close()
    steps = received.histogram("manta_step_seconds", tier="fast")
    assert steps.count == sum(steps.bucket_counts) == 4
    assert steps.sum == pytest.approx(1000.9)
    # Buckets below the first value have never been counted in, so Prometheus does not know them either.
    assert list(steps.explicit_bounds) == [bound for bound in SECONDS if bound >= 0.5]
    assert steps.bucket_counts[0] == 3
    assert steps.bucket_counts[-1] == 1
    assert received.metrics["manta_step_seconds"].description == "Duration of a step with a forward pass."
    assert not any(name.endswith(("_bucket", "_count")) for name in received.metrics)
    assert received.number("manta_engine_generated_tokens", tier="fast").as_double == 30
    assert received.number("manta_kv_blocks", tier="fast", state="used").as_double == 40


def test_it_is_sent_again_and_again(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        sent = sender(received, metrics={"endpoint": received.metrics_endpoint, "interval_s": 1})
        counter = sent.counter("manta_things", "Things.")
        deadline = time.monotonic() + 20
        while len(received.resources) < 2 and time.monotonic() < deadline:
            counter.inc(1)
            time.sleep(0.05)
        sent.close()
        assert len(received.resources) >= 3
        first = received.number("manta_things")
    assert first.as_double == recorded.value("ray_manta_things_total")
    assert first.start_time_unix_nano < first.time_unix_nano


def test_a_receiver_that_fails_costs_one_line_and_no_count(
    recorded: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    config = TelemetryConfig.model_validate({"metrics": {"endpoint": "http://127.0.0.1:9/v1/metrics", "interval_s": 1}})
    sent = make_otlp_instruments(config, "router", "router-1")
    assert sent is not None
    with caplog.at_level(logging.WARNING):
        sent.counter("manta_things", "Things.").inc(5)
        time.sleep(2.2)  # two exports, by the SDK's own clock
        sent.close()
    assert recorded.value("ray_manta_things_total") == 5
    lines = [each for each in caplog.records if each.name == "cluster.telemetry.otlp_exporters"]
    assert [each.getMessage() for each in lines] == ["metrics are lost: the receiver fails: ConnectError"]


def test_by_default_nothing_is_sent() -> None:  # nor loaded, which a test of the traces sees
    assert make_otlp_instruments(TelemetryConfig(), "router", "router-1") is None


@pytest.mark.slow
def test_the_router_and_the_replicas_of_a_service_send_theirs(serve_port: int) -> None:
    with http_receiver() as received:
        arguments = {
            "router": {"keys": [{"key": "sk-sent", "tenant": "acme", "team": "core"}], "auto": None},
            "ingress": {"num_cpus": 0, "drain_timeout_s": 5},
            "telemetry": {"metrics": {"endpoint": received.metrics_endpoint, "interval_s": 1}},
            "tiers": [{"name": "stub", "num_cpus": 0, "drain_timeout_s": 5, "engine": {"model": "models/none"}}],
        }
        config = MantaConfig.model_validate(arguments)
        serve.run(build_with(config, StubFactory(0.001)), name="sent", route_prefix="/sent")
        url, key = f"http://127.0.0.1:{serve_port}/sent", {"authorization": "Bearer sk-sent"}
        eventually(lambda: httpx.get(f"{url}/healthz", timeout=5).status_code == 200, "the tier is ready")
        body = {"model": "stub", "prompt": "Hi", "max_tokens": 4}
        assert httpx.post(f"{url}/v1/completions", json=body, headers=key, timeout=60).status_code == 200
        wanted = {"manta_requests", "manta_engine_generated_tokens", "manta_journal_bytes"}

        def arrived() -> bool:
            return (
                wanted <= received.metrics.keys()
                and received.number("manta_engine_generated_tokens", tier="stub").as_double == 4
            )

        eventually(arrived, "all metrics have come, with all tokens")
        serve.delete("sent")
    labels = {"tenant": "acme", "tier": "stub", "outcome": "finished"}
    assert received.number("manta_requests", **labels).as_double == 1
    assert {(each["manta.role"], each["service.name"]) for each in received.resources} == {
        ("router", "manta"),
        ("replica", "manta"),
    }
    assert len({each["service.instance.id"] for each in received.resources}) == 2


def test_a_receiver_by_http_needs_a_whole_address() -> None:
    with pytest.raises(ValueError, match=r"metrics\.endpoint: must begin with http"):
        TelemetryConfig.model_validate({"metrics": {"endpoint": "collector:4318"}})
