"""The component ``otel-collector`` builds in each overlay, is valid and locked down, and fits the settings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cluster.telemetry.config import TelemetryConfig
from tests.k8s.overlays import OVERLAYS, ROOT, _built, as_pod
from tests.k8s.schemas import CORE_GROUPS, VERSIONS, check_core

Object = dict[str, Any]
COMPONENT = ROOT / "k8s" / "components" / "otel-collector"
NAME = "manta-otel-collector"
KUSTOMIZATION = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "manta"}
SETTINGS = re.compile(r"^#? *telemetry:\n#? +endpoint: http://manta-otel-collector.*\n#? +metrics: .*$", re.MULTILINE)


@pytest.fixture(params=OVERLAYS)
def added(request: pytest.FixtureRequest, tmp_path: Path) -> list[Object]:
    """The objects that the component adds to an overlay."""
    overlay = ROOT / "k8s" / "overlays" / request.param
    paths = {"resources": [os.path.relpath(overlay, tmp_path)], "components": [os.path.relpath(COMPONENT, tmp_path)]}
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "manta"} | paths
        )
    )
    known = {(each["kind"], each["metadata"]["name"]) for each in _built(overlay)}
    return [each for each in _built(tmp_path) if (each["kind"], each["metadata"]["name"]) not in known]


def one(objects: list[Object], kind: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def config() -> Object:
    found: Object = yaml.safe_load((COMPONENT / "collector.yaml").read_text())
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_what_it_adds_is_valid(added: list[Object], version: str) -> None:
    kinds = sorted(each["kind"] for each in added)
    assert kinds == ["ConfigMap", "Deployment", "NetworkPolicy", "NetworkPolicy", "Service", "ServiceAccount"]
    for each in added:
        assert each["apiVersion"] in CORE_GROUPS
        check_core(each, version)
    check_core(as_pod(one(added, "Deployment")["spec"]["template"]), version)


def test_its_pod_may_do_no_more_than_the_others(added: list[Object]) -> None:
    spec = one(added, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["runAsNonRoot"]
    assert context["readOnlyRootFilesystem"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsUser"] > 10_000
    assert spec["automountServiceAccountToken"] is False
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    assert container.keys() >= {"startupProbe", "livenessProbe", "readinessProbe"}
    assert re.search(r":[\w.-]+$", container["image"])


def test_its_config_is_mounted_by_a_name_with_a_digest(added: list[Object]) -> None:
    spec = one(added, "Deployment")["spec"]["template"]["spec"]
    made = one(added, "ConfigMap")["metadata"]["name"]
    assert made.startswith(f"{NAME}-")
    assert spec["volumes"] == [{"name": "config", "configMap": {"name": made}}]
    mount, argument = spec["containers"][0]["volumeMounts"][0]["mountPath"], spec["containers"][0]["args"][0]
    assert argument == f"--config={mount}/collector.yaml"


def test_pipelines_have_what_is_defined_and_use_all_of_it() -> None:
    found = config()
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in found["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == found[kind].keys()
    assert set(found["service"]["extensions"]) == found["extensions"].keys()
    assert found["service"]["pipelines"].keys() == {"traces", "metrics"}
    for pipeline in found["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"  # else it protects nothing


def test_the_ports_are_the_same_everywhere(added: list[Object]) -> None:
    protocols = config()["receivers"]["otlp"]["protocols"]
    listening = {int(each["endpoint"].rpartition(":")[2]) for each in protocols.values()}
    health = int(config()["extensions"]["health_check"]["endpoint"].rpartition(":")[2])
    spec = one(added, "Deployment")["spec"]["template"]["spec"]
    ports = {each["name"]: each["containerPort"] for each in spec["containers"][0]["ports"]}
    assert ports == {"otlp-grpc": 4317, "otlp-http": 4318, "health": health}
    service = one(added, "Service")["spec"]
    assert {each["port"]: ports[each["targetPort"]] for each in service["ports"]} == {port: port for port in listening}
    labels = one(added, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    policies = {each["metadata"]["name"]: each["spec"] for each in added if each["kind"] == "NetworkPolicy"}
    inward, outward = policies["otel-collector"]["ingress"][0], policies["ray-to-otel-collector"]["egress"][0]
    assert {each["port"] for each in inward["ports"]} == {each["port"] for each in outward["ports"]} == listening
    assert inward["from"] == [{"podSelector": policies["ray-to-otel-collector"]["podSelector"]}]
    assert outward["to"] == [{"podSelector": policies["otel-collector"]["podSelector"]}]


@pytest.mark.parametrize("path", ["k8s/components/otel-collector/kustomization.yaml", "docs/operations.md"])
def test_the_settings_that_are_documented_reach_it(path: str) -> None:
    text = (ROOT / path).read_text()
    block = SETTINGS.search(text)
    assert block, path
    settings = yaml.safe_load(re.sub("^#", "", block[0], flags=re.MULTILINE))["telemetry"]
    telemetry = TelemetryConfig.model_validate(settings)
    protocols = config()["receivers"]["otlp"]["protocols"]
    for endpoint, signal in ((telemetry.endpoint, "traces"), (telemetry.metrics.endpoint, "metrics")):
        address = urlsplit(endpoint or "")
        assert address.hostname == NAME
        assert address.path == f"/v1/{signal}"
        assert protocols[telemetry.protocol]["endpoint"] == f"0.0.0.0:{address.port}"
