"""The times of stages are published once a second, as a histogram of Prometheus."""

from __future__ import annotations

import pytest

from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.stage_metrics import STAGES, RayStageMetrics
from cluster.telemetry.summed_instruments import SummedInstruments
from router.ports.stage_metrics import Operation
from tests.cluster.ray_metrics import RecordedMetrics, record

NAME = "ray_manta_stage_seconds"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


@pytest.fixture
def summed(recorded: RecordedMetrics) -> SummedInstruments:
    return SummedInstruments(RayInstruments("app"))


def test_stages_are_counted_in_every_bucket_from_their_time_up(
    recorded: RecordedMetrics, summed: SummedInstruments
) -> None:
    took = RayStageMetrics(summed).of(Operation.GENERATION)
    for seconds in (0.05, 0.3, 500.0):  # a bound, between two, and above all of them
        took("safety", seconds)
    took("answer", 0.0)
    assert recorded.values == {}

    summed.publish()
    labels = {"operation": "generation", "stage": "safety"}
    up_to = {le: recorded.value(f"{NAME}_bucket_total", le=le, **labels) for le in ("0.025", "0.05", "0.5", "+Inf")}
    assert up_to == {"0.025": 0, "0.05": 1, "0.5": 2, "+Inf": 3}
    assert recorded.value(f"{NAME}_sum_total", **labels) == pytest.approx(500.35)
    assert recorded.value(f"{NAME}_count_total", **labels) == 3
    assert recorded.value(f"{NAME}_count_total", operation="generation", stage="answer") == 1


def test_a_bucket_of_each_stage_ends_at_each_objective(recorded: RecordedMetrics, summed: SummedInstruments) -> None:
    took = RayStageMetrics(summed, (3.0, 0.075, 2.0)).of(Operation.GENERATION)
    for seconds in (2.75, 3.0, 3.25):
        took("answer", seconds)
    summed.publish()
    labels = {"operation": "generation", "stage": "answer"}
    up_to = {le: recorded.value(f"{NAME}_bucket_total", le=le, **labels) for le in ("2.5", "3.0", "5.0", "+Inf")}
    assert up_to == {"2.5": 0, "3.0": 2, "5.0": 3, "+Inf": 3}


def test_what_was_published_is_not_published_again(recorded: RecordedMetrics, summed: SummedInstruments) -> None:
    took = RayStageMetrics(summed).of(Operation.EMBEDDINGS)
    took("answer", 0.2)
    summed.publish()
    calls = recorded.calls
    summed.publish()
    assert recorded.calls == calls
    took("answer", 0.2)
    summed.publish()
    labels = {"operation": "embeddings", "stage": "answer"}
    assert recorded.value(f"{NAME}_bucket_total", le="+Inf", **labels) == 2


def test_a_stage_has_20_series_and_an_unknown_one_is_other(
    recorded: RecordedMetrics, summed: SummedInstruments
) -> None:
    took = RayStageMetrics(summed).of(Operation.GENERATION)
    for stage in (*STAGES, "zanzibar", "quokka"):
        took(str(stage), 0.0001)
    summed.publish()
    stages = {dict(labels)["stage"] for _, labels in recorded.values}
    assert stages == {*map(str, STAGES), "other"}
    assert len(recorded.values) == len(stages) * 20
