"""The series of Manta's metrics have bounds that follow from the settings, whatever is counted."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.autoscaling.decision import Reason as ScalingReason
from cluster.config import MantaConfig
from cluster.latency_objectives import all_objectives, with_objectives
from cluster.telemetry.cache_metrics import MAX_REASONS, RayCacheMetrics
from cluster.telemetry.engine_metric_definitions import gauges, totals
from cluster.telemetry.fault_metrics import FaultMetrics
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.prediction_metrics import PredictionMetrics
from cluster.telemetry.router_build_info import RouterBuildInfo
from cluster.telemetry.series_bounds import Series, autoscaler_series, excess, series_bounds
from cluster.telemetry.stage_metrics import STAGES, RayStageMetrics
from cluster.telemetry.summed_instruments import SummedInstruments
from cluster.telemetry.usage_metrics import (
    ADMISSIONS,
    CLASSES,
    DECISIONS,
    FAILOVERS,
    OUTCOMES,
    REASONS,
    SCOPES,
    SPECULATIONS,
    RayUsageMetrics,
)
from cluster.telemetry.verdict_labels import CATEGORIES, CHECKS
from engine.metrics import Recorder
from router.cache.found_answer import CacheStatus
from router.ports.answer_cache import HitJudge
from router.ports.limit_store import LimitName
from router.ports.stage_metrics import Operation
from router.ports.usage_metrics import AdmissionSample, UsageSample
from safety.api import Action, Stage, Verdict
from tests.cluster.engine_stats import STATS
from tests.cluster.ray_metrics import RecordedMetrics, record

ROOT = Path(__file__).resolve().parents[2]
UNKNOWN = ("of the next release", "zanzibar")
TENANTS = 3
RAY_KEEPS = 2000
"""The series of a metric that OpenTelemetry keeps in a process, one of which has what there is no room for."""


def settings(name: str, **telemetry: Any) -> MantaConfig:
    (application,) = yaml.safe_load((ROOT / "deployments" / name).read_text())["applications"]
    return MantaConfig.model_validate(application["args"] | ({"telemetry": telemetry} if telemetry else {}))


def counted(recorded: RecordedMetrics) -> Counter[str]:
    """The series of each metric, by the names of the bounds."""
    return Counter(name.removeprefix("ray_").removesuffix("_total") for name, _ in recorded.values)


def flood(config: MantaConfig) -> None:
    """Counts everything that a router counts, with each value that a label may have, and with others."""
    summed = SummedInstruments(RayInstruments())
    usage = RayUsageMetrics(summed, config.telemetry.metrics.max_tenants)
    tiers = [tier.name for tier in config.tiers]
    tenants = [f"tenant-{number}" for number in range(config.telemetry.metrics.max_tenants + 5)]
    for tenant, tier, outcome in product(
        tenants, (*tiers, "embeddings", "moderation", "retrieval"), (*OUTCOMES, *UNKNOWN)
    ):
        for decision in (*DECISIONS, *UNKNOWN):
            usage.count(UsageSample(tenant, tier, outcome, 3, 2, 1, 0.5, decision))
    for tenant, scope, limit in product(tenants, (*SCOPES, *UNKNOWN), LimitName):
        usage.near_limit(tenant, scope, limit)
        usage.refused(tenant, scope, limit)
    for tier, kind in product(tiers, (*FAILOVERS, *UNKNOWN)):
        usage.failover(tier, kind)
    for tier, outcome in product(tiers, (*SPECULATIONS, *UNKNOWN)):
        usage.speculation(tier, outcome)
    admitted = product(tiers, (*CLASSES, *UNKNOWN), (*ADMISSIONS, *UNKNOWN), (*REASONS, *UNKNOWN))
    for tier, of, outcome, reason in admitted:
        usage.admission(AdmissionSample(tier, of, outcome, reason, 1.0, 0.5, 1, 1))
    for stage, check, category, action in product(Stage, (*CHECKS, *UNKNOWN), (*CATEGORIES, *UNKNOWN, *CHECKS), Action):
        usage.verdicts(stage, [Verdict(check, "1", action, category)])
        usage.verdicts(stage, [Verdict(check, "1", action, category, error="timeout")])
    flood_cache(RayCacheMetrics(summed, config.telemetry.metrics.max_tenants), tenants)
    stages = RayStageMetrics(summed, all_objectives(config))
    for operation, name in product(Operation, (*STAGES, *UNKNOWN)):
        stages.of(operation)(str(name), 0.0001)
    errors = PredictionMetrics(summed)
    for tier, measured in product(tiers, (0.99, 1.01)):
        errors.count(tier, 1.0, measured)
    faults = FaultMetrics(summed)
    for log in ("ledger", "audit"):
        faults.lost(log)()
    for reason in ("full", "redaction", "disk"):
        faults.lost_text(reason)
    faults.unreadable_policy()
    RouterBuildInfo(summed).publish()
    summed.publish()


def flood_cache(metrics: RayCacheMetrics, tenants: list[str]) -> None:
    for tenant, status in product(tenants, (*CacheStatus, *UNKNOWN)):
        metrics.asked(tenant, status, "new")
        metrics.stored(tenant)
    for number, status in product(range(200), CacheStatus):
        metrics.asked("tenant-0", status, f"reason {number}")
        metrics.unstored("tenant-0", f"reason {number}")
    for tenant, judge, wrong in product(tenants, (*HitJudge, *UNKNOWN), (False, True)):
        metrics.judged(tenant, judge, wrong=wrong)
    metrics.poisoned()


LOOSE = {"manta_cache_reasons"}
"""Of which the bound is not reached: which reasons come first decides."""
ELSEWHERE = {"manta_breaker_open", "manta_journal_bytes", "manta_untraced_requests", "manta_trace_faults"}


@pytest.mark.parametrize("name", ["dev.yaml", "prod.yaml", "cluster.yaml"])
def test_a_router_has_as_many_series_as_its_labels_allow_and_no_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record(monkeypatch)
    config = settings(name, metrics={"max_tenants": TENANTS})
    flood(config)
    bounds, seen = series_bounds(config).processes["Router"].series, counted(recorded)
    assert {metric for metric in bounds if not seen[metric]} == ELSEWHERE
    assert {metric: seen[metric] for metric in seen if metric not in LOOSE} == {
        metric: bounds[metric] for metric in seen if metric not in LOOSE
    }
    assert MAX_REASONS < seen["manta_cache_reasons"] <= bounds["manta_cache_reasons"]


@pytest.mark.parametrize("name", ["dev.yaml", "prod.yaml"])
def test_a_replica_has_the_series_of_its_engine(name: str) -> None:
    config = settings(name)
    tier = with_objectives(config, config.tiers[0])
    recorder = Recorder(objectives_s=tier.latency_objectives_s)
    recorder.kernels = "compiled"
    metrics = recorder.snapshot(STATS, {})
    found = Counter(series.name for series, _ in (*totals(metrics), *gauges(metrics, "v1", "1.0")))
    bounds = series_bounds(config).processes[tier.name].series
    assert found.keys() | {"manta_replica_start_failures", "manta_untraced_requests", "manta_trace_faults"} == (
        bounds.keys()
    )
    apart = {"manta_build_info", "manta_engine_prefix_misses", "manta_engine_phase_seconds"}  # ``other`` is not there
    assert {each: found[each] for each in found if each not in apart} == {
        each: bounds[each] for each in found if each not in apart
    }
    assert all(found[each] <= bounds[each] for each in apart)


def test_the_autoscaler_has_series_by_deployment_and_reason() -> None:
    bounds = autoscaler_series(3)
    assert bounds["manta_autoscaling_decisions"] == 3 * len(ScalingReason)
    assert bounds["manta_autoscaling_why_not"] == 2 * bounds["manta_autoscaling_decisions"]
    assert sum(bounds.values()) == 3 * (3 * len(ScalingReason) + 6)


@pytest.mark.parametrize(("name", "tenants"), [("dev.yaml", 20), ("dev.yaml", 56), ("prod.yaml", 20)])
def test_no_process_has_more_series_of_a_metric_than_ray_passes_on(name: str, tenants: int) -> None:
    """docs/operations.md names the most tenants of four tiers."""
    bounds = series_bounds(settings(name, metrics={"max_tenants": tenants}))
    assert max(max(each.series.values(), default=0) for each in bounds.processes.values()) < RAY_KEEPS


def test_the_documented_bounds_are_those_of_the_settings() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for name in ("dev.yaml", "prod.yaml"):
        bounds = series_bounds(settings(name))
        (row,) = re.findall(rf"\| `deployments/{name}` \|(.*)\|", text)
        numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", row)]
        router, tier = (sum(bounds.processes[each].series.values()) for each in ("Router", "fast"))
        assert numbers == [router, tier, bounds.total], f"{name}: {router:,}, {tier:,}, {bounds.total:,}"


def test_what_has_more_series_than_it_may_is_named() -> None:
    bounds = series_bounds(settings("dev.yaml"))
    fine: Series = {"manta_cost": bounds.of_process("manta_cost")}
    seen = {("ray_manta_cost_total", "a"): fine["manta_cost"], ("ray_manta_journal_bytes", "a"): 3}
    seen |= {("ray_manta_new_total", "b"): 1}
    assert list(excess(bounds, seen)) == [
        "ray_manta_journal_bytes: 3 of process a, 2 at most",
        "ray_manta_new_total: 1 of process b, 0 at most",
    ]


def test_the_most_replicas_count_and_small_models_that_share_a_process_have_the_series_of_each() -> None:
    dev, prod = series_bounds(settings("dev.yaml")), series_bounds(settings("prod.yaml"))
    assert {name: each.most for name, each in prod.processes.items()} == {
        "Router": 2,
        "fast": 8,
        "balanced": 8,
        "frontier": 4,
        "SafetyClassifier": 2,
        "Embedder": 2,
        "SemanticCache": 2,
        "Autoscaler": 1,
    }
    assert prod.processes["Embedder"].series["manta_trace_faults"] == 1
    assert dev.processes["SmallModels"].series["manta_trace_faults"] == 3  # a role each
    assert dev.of_process("manta_trace_faults") == 3
