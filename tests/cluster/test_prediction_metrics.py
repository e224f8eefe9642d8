"""The error of predicted TTFTs, as metrics."""

from __future__ import annotations

import pytest

from cluster.telemetry.prediction_metrics import PredictionMetrics
from tests.cluster.ray_metrics import record

NAME = "ray_manta_ttft_error_bucket_total"


def test_errors_are_counted_by_tier_direction_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record(monkeypatch)
    metrics = PredictionMetrics()
    metrics.count("fast", 1.0, 1.25)  # a fifth
    metrics.count("fast", 9.0, 1.0)
    metrics.count("fast", 1.0, 0.0)  # not measured

    late = {le: recorded.value(NAME, tier="fast", direction="late", le=le) for le in ("0.1", "0.2", "5.0", "+Inf")}
    early = {le: recorded.value(NAME, tier="fast", direction="early", le=le) for le in ("5.0", "+Inf")}
    assert late == {"0.1": 0, "0.2": 1, "5.0": 1, "+Inf": 1}
    assert early == {"5.0": 0, "+Inf": 1}
    assert recorded.value("ray_manta_ttft_error_sum_total", tier="fast", direction="early") == 8
    assert recorded.value("ray_manta_ttft_error_count_total", tier="fast", direction="early") == 1
