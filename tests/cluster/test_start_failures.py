"""A replica that does not start is counted, although its process ends at once."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import pytest
import ray
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig, TierConfig
from cluster.replica.tier_replica import OnStep, ReplicaEngine
from cluster.telemetry.start_failures import StartFailures
from tests.cluster.graph import dev_config, eventually
from tests.cluster.ray_metrics import record


@dataclass(frozen=True, slots=True)
class BrokenFactory:
    """An engine factory that fails, as with a model file that is missing."""

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        raise FileNotFoundError("model.safetensors")


def test_only_a_start_that_raises_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record(monkeypatch)
    failures = StartFailures("fast", "manta")
    with failures.counted():
        pass
    assert recorded.value("ray_manta_replica_start_failures_total", tier="fast") == 0
    with pytest.raises(MemoryError), failures.counted():
        raise MemoryError
    assert recorded.value("ray_manta_replica_start_failures_total", tier="fast") == 1
    assert recorded.applications["ray_manta_replica_start_failures_total"] == "manta"


@pytest.mark.slow
def test_prometheus_reads_the_failed_starts_of_a_tier(serve_port: int) -> None:
    del serve_port
    dev = dev_config()
    arguments = {
        "router": {"keys": [{"key": "sk-broken", "tenant": "acme", "team": "core"}], "auto": None},
        "ingress": dev["ingress"],
        "tiers": [dev["tiers"][0]],
    }
    application = build_with(MantaConfig.model_validate(arguments), BrokenFactory())
    (node,) = ray.nodes()

    def counted() -> bool:
        text = httpx.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10).text
        found = [line for line in text.splitlines() if line.startswith("ray_manta_replica_start_failures_total{")]
        return any('tier="fast"' in line and 'application="broken"' in line for line in found)

    try:
        with pytest.raises(RuntimeError):  # Serve gives up after some tries
            serve.run(application, name="broken", route_prefix="/broken")
        eventually(counted, "the failed starts are exported", 60)
    finally:
        serve.delete("broken")
