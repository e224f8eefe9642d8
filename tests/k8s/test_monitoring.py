"""Every rule and panel uses metrics that exist, every alert has a runbook, and what is written is up to date."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import cast

import pytest
import yaml

from cluster.autoscaling.config import SloConfig
from cluster.autoscaling.decision_publisher import DecisionPublisher
from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.waiting_room_store import WaitingRoomStore
from cluster.config import MantaConfig
from cluster.latency_objectives import with_objectives
from cluster.telemetry import cache_metrics, fault_metrics, prediction_metrics, replica_metrics, usage_metrics
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.dependency_gauges import Dependencies, DependencyGauges
from cluster.telemetry.engine_metric_definitions import totals
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.router_build_info import RouterBuildInfo
from cluster.telemetry.stage_metrics import RayStageMetrics
from cluster.telemetry.start_failures import StartFailures
from cluster.telemetry.summed_instruments import SummedInstruments
from cluster.telemetry.trace_sampling import TraceSampler
from engine.api import EngineStats, Priority
from engine.metrics import Recorder
from k8s.monitoring.alerts import PROCESS
from k8s.monitoring.dashboards import dashboards
from k8s.monitoring.grafana import Dashboard
from k8s.monitoring.objectives import BURN_RATES, objectives, promised
from k8s.monitoring.rule import Severity
from k8s.monitoring.written_files import DASHBOARDS, ROOT, RULES, written_files
from router.memory_safety_store import MemorySafetyStore
from router.ports.clock import SystemClock
from tests.cluster.ray_metrics import record
from tests.k8s.expressions import METRIC, alerts, expressions, recordings
from tests.k8s.overlays import OVERLAYS, objects

MATCHER = re.compile(r"(\w+)\s*(?:=~|!=|!~|=)")
LE = re.compile(r'le="([^"]+)"')
BY = re.compile(r"\b(?:by|ignoring) \(([^)]*)\)")


@pytest.fixture
def defined(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, frozenset[str]]:
    """The labels of all metrics that the code makes, by their names in Prometheus, and of the recorded series."""
    recorded = record(monkeypatch)
    cache_metrics.RayCacheMetrics()
    fault_metrics.FaultMetrics()
    prediction_metrics.PredictionMetrics()
    usage_metrics.RayUsageMetrics()
    replica_metrics.ReplicaMetrics("fast", "v1")
    StartFailures("fast")
    DecisionPublisher("manta", cast("DecisionStore", object()), cast("WaitingRoomStore", object()))
    DependencyGauges(Dependencies(None, MemorySafetyStore(SystemClock()).audit, {}))
    RouterBuildInfo()
    RayStageMetrics(SummedInstruments(RayInstruments()))
    TraceSampler(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces"), "router", follows=False).close()
    series = {
        each.name: frozenset({"application", "tier"}) for objective in objectives() for each in objective.recordings()
    }
    return recorded.labels | series


def faults(expression: str, defined: Mapping[str, frozenset[str]]) -> list[str]:
    """The metrics and labels of an expression that the code does not have."""
    found = METRIC.findall(expression)
    unknown = [name for name, _ in found if name not in defined]
    labels = frozenset({PROCESS}).union(*(defined.get(name, frozenset()) for name, _ in found))
    for name, matchers in found:
        unknown += [f"{name}.{each}" for each in MATCHER.findall(matchers) if each not in defined.get(name, ())]
    for group in BY.findall(expression):
        unknown += [each for each in group.split(", ") if each not in labels]
    return unknown


def test_every_metric_and_label_of_rules_and_dashboards_is_one_that_the_code_has(
    defined: Mapping[str, frozenset[str]],
) -> None:
    assert {place: wrong for place, text in expressions() if (wrong := faults(text, defined))} == {}


def test_a_metric_or_a_label_that_does_not_exist_is_found(defined: Mapping[str, frozenset[str]]) -> None:
    assert faults("rate(ray_manta_steps_total[5m])", defined) == ["ray_manta_steps_total"]
    assert faults('ray_manta_engine_running{class="batch"}', defined) == ["ray_manta_engine_running.class"]
    assert faults("sum by (tenant) (ray_manta_engine_running)", defined) == ["tenant"]


def test_every_series_says_of_which_application_it_is(defined: Mapping[str, frozenset[str]]) -> None:
    assert [name for name, labels in defined.items() if "application" not in labels] == []


def test_rules_keep_tiers_of_the_same_name_in_two_applications_apart() -> None:
    rules = [(each.name, each.expression) for each in alerts()] + [
        (each.name, each.expression) for each in recordings()
    ]
    grouped = [(name, group) for name, text in rules for group in BY.findall(text) if group not in ("state", "le")]
    assert [(name, group) for name, group in grouped if "application" not in group.split(", ")] == []


def test_every_metric_is_in_a_dashboard_or_a_rule(defined: Mapping[str, frozenset[str]]) -> None:
    used = {name for _, text in expressions() for name, _ in METRIC.findall(text)}
    histograms = {name.removesuffix("_bucket_total") for name in used if name.endswith("_bucket_total")}
    parts = {f"{name}{part}_total" for name in histograms for part in ("_bucket", "_count", "_sum")}
    assert defined.keys() - used - parts == set()


def test_the_written_files_are_those_that_make_k8s_would_write_now() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in written_files().items() if path.read_text() != text]
    assert not stale, "run `make k8s`"


def test_every_alert_has_a_section_in_the_runbook_that_says_what_to_do() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    sections = dict(re.findall(r"^### (Manta\w+)\n\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    assert {alert.name for alert in alerts()} == sections.keys()
    assert [name for name, section in sections.items() if len(section) < 150] == []
    for alert in alerts():
        assert alert.rule()["annotations"]["runbook_url"] == f"docs/operations.md#{alert.name.lower()}"


def test_each_objective_has_three_windows_and_asks_for_enough_events() -> None:
    assert [(each.rate, each.long, each.short) for each in BURN_RATES] == [
        (14.4, "1h", "5m"),
        (6, "6h", "30m"),
        (1, "3d", "6h"),
    ]
    recorded = {each.name for each in recordings()}
    for objective in objectives():
        for alert, burn in zip(objective.alerts(), BURN_RATES, strict=True):
            assert {objective.ratio(burn.long), objective.ratio(burn.short), objective.events(burn.long)} <= recorded
            assert f">= {burn.min_events}" in alert.expression


def test_each_tier_is_held_to_the_objective_by_which_it_is_scaled() -> None:
    availability, ttft, itl = objectives()
    assert set(promised()) == {"fast", "balanced", "frontier"}
    for tier, slo in promised().items():
        for objective, seconds in ((ttft, slo.ttft_p99_s), (itl, slo.itl_p99_s)):
            (own,) = [each for each in objective.good if f'tier="{tier}"' in each.counter]
            assert f'le="{seconds}"' in own.counter
    assert 'tier!~"fast|balanced|frontier", le="2.0"' in ttft.good[-1].counter
    assert len(availability.good) == 1


def configs() -> list[Path]:
    return sorted(path for path in (ROOT / "deployments").glob("*.yaml") if "applications" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", configs(), ids=lambda path: path.stem)
def test_a_bucket_of_each_tier_ends_at_each_of_its_objectives(path: Path) -> None:
    (application,) = yaml.safe_load(path.read_text("utf-8"))["applications"]
    config = MantaConfig.model_validate(application["args"])
    ttft, itl = objectives()[1:]
    for tier in config.tiers:
        recorder = Recorder(objectives_s=with_objectives(config, tier).latency_objectives_s)
        metrics = recorder.snapshot(EngineStats(*(0,) * 12), {})
        bounds = metrics.between_tokens_s.bounds
        assert all(each.bounds == bounds for each in metrics.first_token_s.values())
        exported = {series.labels[-1] for series, _ in totals(metrics) if series.name == "manta_itl_seconds_bucket"}
        scaled = None if config.autoscaling is None else config.autoscaling.tiers.get(tier.name)
        for slo in () if scaled is None else scaled.slos.values():
            assert {str(slo.ttft_p99_s), str(slo.itl_p99_s)} <= exported
        for priority in Priority:
            seconds = config.router.admission.terms(tier.name, priority).ttft_s
            assert seconds is None or str(seconds) in exported
        alerted = [each.counter for each in (*ttft.good, *itl.good) if scaled is not None and tier.name in each.counter]
        assert all(LE.findall(counter)[0] in exported for counter in alerted)
        assert {str(SloConfig().ttft_p99_s), str(SloConfig().itl_p99_s)} <= exported


def test_names_of_alerts_are_told_apart_by_their_labels() -> None:
    names = [(alert.name, alert.labels) for alert in alerts()]
    assert len(names) == len(set(names))
    assert {alert.severity for alert in alerts()} == set(Severity)


@pytest.mark.parametrize("board", dashboards(), ids=lambda board: board.uid)
def test_panels_have_numbers_of_their_own_and_do_not_cover_each_other(board: Dashboard) -> None:
    panels = board.document()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_the_rules_and_the_dashboards(overlay: str) -> None:
    (rule,) = objects(overlay, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text())["spec"]
    (found,) = [each for each in objects(overlay, "ConfigMap") if each["metadata"]["name"] == "manta-dashboards"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    titles = {json.loads(text)["title"] for text in found["data"].values()}
    assert titles == {board.title for board in dashboards()}
    assert {path.name for path in DASHBOARDS.glob("*.json")} == found["data"].keys()
