"""Replicas of different speed are told apart, and those of the same speed are not."""

from __future__ import annotations

from cluster.autoscaling.replica_report import WindowedLatencies, from_numbers, to_numbers
from cluster.config import TierConfig
from cluster.replica.speed_group import speed_group
from engine.api import EngineLoad
from engine.config import EngineConfig
from tests.cluster.engines import LocalReplica

TIER = TierConfig(name="fast", engine=EngineConfig(model="none"), num_gpus=1)


def test_a_new_version_or_other_hardware_is_another_model() -> None:
    same = speed_group(TIER, "v1", ["triton"], "H100")
    assert speed_group(TIER, "v1", ["triton"], "H100") == same
    others = [
        speed_group(TIER, "v2", ["triton"], "H100"),
        speed_group(TIER, "v1", ["torch"], "H100"),
        speed_group(TIER, "v1", ["triton"], "A100"),
        speed_group(TIER.model_copy(update={"num_cpus": 4.0}), "v1", ["triton"], "H100"),
        speed_group(TIER.model_copy(update={"resources": {"nvlink": 1.0}}), "v1", ["triton"], "H100"),
    ]
    assert len({same, *others}) == 6


async def test_a_replica_reports_its_model() -> None:
    report = from_numbers(await LocalReplica().actor.record_autoscaling_stats())
    unknown = from_numbers(to_numbers(EngineLoad(), WindowedLatencies(), 0.0))
    assert report is not None
    assert unknown is not None
    assert (bool(report.sample.model), unknown.sample.model) == (True, 0)
