"""No pod may do more than it needs: no root, no writable root file system, no secret in plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from k8s.secrets import first_secrets, redis_secrets
from tests.k8s.overlays import OVERLAYS, ROOT, built, config_map, objects, pod_templates, ray_groups, ray_service

Object = dict[str, Any]

TLS_SECRETS = {"manta-tls", "manta-redis-tls"}
"""The Secrets with certificates, which an operator brings (docs/operations.md)."""
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}


def containers(overlay: str) -> Iterator[tuple[str, Object, Object]]:
    """The name, container and pod spec of each container of an overlay."""
    for name, template in pod_templates(overlay).items():
        spec = template["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield f"{name}/{container['name']}", container, spec


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_are_no_root_and_cannot_write_outside_their_volumes(overlay: str) -> None:
    contexts = {name: (container["securityContext"], spec) for name, container, spec in containers(overlay)}
    head = ray_service(overlay)["spec"]["rayClusterConfig"]
    contexts["autoscaler"] = (head["autoscalerOptions"]["securityContext"], head["headGroupSpec"]["template"]["spec"])
    for name, (context, spec) in contexts.items():
        assert context["runAsNonRoot"] is True, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert spec["securityContext"]["runAsUser"] > 10_000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_what_the_restricted_standard_allows_and_no_more(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        spec = template["spec"]
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
        for volume in spec["volumes"]:
            (kind,) = volume.keys() - {"name"}
            assert kind in RESTRICTED_VOLUMES, name
            assert kind != "emptyDir" or "sizeLimit" in volume["emptyDir"], name
        for container in spec["containers"]:
            assert not any("hostPort" in port for port in container.get("ports", [])), name
    (namespace,) = objects(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_requests_and_limits(overlay: str) -> None:
    for name, container, _ in containers(overlay):
        resources = container["resources"]
        for kind in ("requests", "limits"):
            assert resources[kind].keys() >= {"cpu", "memory"}, name
        assert resources["requests"]["memory"] == resources["limits"]["memory"] or name.startswith("Job/"), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_that_stays_is_watched(overlay: str) -> None:
    for name, container, _ in containers(overlay):
        if not name.startswith("Job/") and "/wait-" not in name:
            assert container.keys() >= {"startupProbe", "livenessProbe", "readinessProbe"}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_need_no_program_that_the_image_lacks(overlay: str) -> None:
    # The operator's own probe of a worker runs wget, which a slim image has not.
    for _, group in ray_groups(ray_service(overlay)):
        container = group["template"]["spec"]["containers"][0]
        assert all("httpGet" in container[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_head_may_ask_the_api_server(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        asked = template["spec"].get("automountServiceAccountToken", True)
        assert asked == (name == "RayService/head"), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_ray_and_haproxy_write_is_on_a_volume(overlay: str) -> None:
    environment = config_map(overlay, "manta-environment")
    assert environment["data"]["HOME"].startswith("/tmp/")
    for name, group in ray_groups(ray_service(overlay)):
        (container,) = group["template"]["spec"]["containers"]
        assert any(each["mountPath"] == "/tmp" and not each.get("readOnly") for each in container["volumeMounts"]), name
        # The name has a digest of the contents, so that a change makes a new cluster.
        assert container["envFrom"] == [{"configMapRef": {"name": environment["metadata"]["name"]}}], name
        assert environment["metadata"]["name"] != "manta-environment"


def test_the_environment_is_the_one_that_the_documents_ask_for() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("## The environment of a cluster")[2].partition("\n## ")[0]
    asked = dict(re.findall(r"`([A-Z_]+)=([^`]*)`", section))
    environment = config_map("prod", "manta-environment")
    token = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}  # the operator sets them
    del asked["BAD_RUNTIME_ENV_CACHE_TTL_SECONDS"]  # for checkouts that may be missing; the image has its own
    assert asked.keys() - environment["data"].keys() == token
    checkout = asked | {"RAY_SERVE_HAPROXY_BINARY_PATH": "/opt/manta/deployments/haproxy"}
    assert {name: environment["data"][name] for name in asked.keys() - token} == {
        name: value for name, value in checkout.items() if name not in token
    }
    assert ray_service("prod")["spec"]["rayClusterConfig"]["authOptions"]["mode"] == "token"


def referenced(value: Any) -> Iterator[str]:
    """The names of the Secrets to which an object refers, at any depth."""
    if isinstance(value, list):
        for each in value:
            yield from referenced(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in ("secretName", "secretKeyRef", "secretRef", "secret"):
                name = each if isinstance(each, str) else each.get("name") or each.get("secretName")
                yield from [name] if name else []
            if key == "certificateRefs":
                yield from (reference["name"] for reference in each)
            yield from referenced(each)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_is_referred_to_and_made_by_a_command_of_the_documents(overlay: str) -> None:
    names = {name for each in built(overlay) for name in referenced(each)}
    made = {each["metadata"]["name"] for each in [*first_secrets(), *redis_secrets(tls=overlay == "prod")]}
    assert names <= made | TLS_SECRETS
    assert made <= names
    assert not objects(overlay, "Secret")
    documents = (ROOT / "docs" / "operations.md").read_text()
    assert all(name in documents for name in TLS_SECRETS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_plain_text(overlay: str) -> None:
    text = yaml.safe_dump(built(overlay))
    assert "sk-" not in text
    # What a setting with such a name has on its line: whether there is an account's token, or nothing but a reference.
    values = dict(re.findall(r"(\w*(?:password|secret|token)): +(\S+)", text, re.IGNORECASE))
    assert values.keys() <= {"automountServiceAccountToken"}
    assert not re.search(r"redis(s)?://[^/\s]*@", text)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_a_tag_that_is_not_latest(overlay: str) -> None:
    for name, container, _ in containers(overlay):
        assert re.search(r":[\w.-]+$|@sha256:[0-9a-f]{64}$", container["image"]), name
        assert not container["image"].endswith(":latest"), name


def test_budgets_leave_room_for_a_drain() -> None:
    groups = dict(ray_groups(ray_service("prod")))
    for budget in objects("prod", "PodDisruptionBudget"):
        component = budget["spec"]["selector"]["matchLabels"]["manta/group"]
        # Pods without a scale can be counted by minAvailable alone.
        assert budget["spec"]["minAvailable"] < groups[component]["minReplicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_serves_is_spread_over_nodes_within_its_cluster(overlay: str) -> None:
    for name, group in ray_groups(ray_service(overlay)):
        if name == "head":
            continue
        rules = {each["topologyKey"]: each for each in group["template"]["spec"]["topologySpreadConstraints"]}
        assert rules.keys() == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for rule in rules.values():
            assert "ray.io/cluster" in rule["matchLabelKeys"]
            labels = group["template"]["metadata"]["labels"]
            assert rule["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_priorities_are_those_of_the_classes_and_the_head_goes_last(overlay: str) -> None:
    values = {each["metadata"]["name"]: each["value"] for each in objects(overlay, "PriorityClass")}
    for name, template in pod_templates(overlay).items():
        if not name.startswith("Job/"):
            control = name in ("RayService/head", "StatefulSet/redis")
            assert template["spec"]["priorityClassName"] == ("manta-control" if control else "manta-serving")
    assert values["manta-control"] > values["manta-serving"]
