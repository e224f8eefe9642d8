"""Ray's agent of a node exports the series of its latest processes, however many there were before."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
PACKAGE = "opentelemetry-sdk"

AGENT = """
from prometheus_client import REGISTRY, generate_latest
from ray._private.telemetry.open_telemetry_metric_recorder import OpenTelemetryMetricRecorder

recorder = OpenTelemetryMetricRecorder(gauge_metric_ttl_seconds=60.0)
recorder.register_gauge_metric("manta_ttft_seconds_bucket_total", "TTFT.")
for process in range(60):
    for le in range(57):
        tags = {"WorkerId": f"process-{process}", "le": str(le)}
        recorder.set_metric_value("manta_ttft_seconds_bucket_total", tags, 1.0)
    lines = [line for line in generate_latest(REGISTRY).decode().splitlines() if line.startswith("ray_manta_ttft")]
    print(process, len(lines), sum(f'"process-{process}"' in line for line in lines))
    recorder._gauge_metric_ttl_s = -1.0  # its time is over
    generate_latest(REGISTRY)
    recorder._gauge_metric_ttl_s = 60.0
"""
"""Ray's own recorder, as its agent uses it, with one process after the other."""


def test_the_sixtieth_replica_on_a_node_has_all_of_its_series_and_the_others_none() -> None:
    pinned = next(
        line.strip().partition("==")[2] for line in CONSTRAINTS.read_text().splitlines() if line.startswith(PACKAGE)
    )
    if version(PACKAGE) != pinned:
        pytest.skip(f"{PACKAGE} {version(PACKAGE)} is installed, not {pinned}")
    done = subprocess.run([sys.executable, "-c", AGENT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{process} 57 57" for process in range(60)]
