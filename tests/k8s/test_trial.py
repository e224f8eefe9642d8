"""The pods of the trial have the rights, limits and files of the manifests, and nothing of these is left out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from k8s.secrets import first_secrets, redis_secrets
from k8s.trial.operator import ray_command, ray_environment
from k8s.trial.overlay import Overlay
from k8s.trial.pod import PodmanPod, UnknownFieldError, cores, quantity
from k8s.trial.questions import ports
from tests.k8s.overlays import built

FOLDER = Path("/volumes")


@pytest.fixture(scope="module")
def overlay() -> Overlay:
    return Overlay((*built("dev"), *redis_secrets(tls=False), *first_secrets()))


def pod(overlay: Overlay, template: Any, **fields: Any) -> PodmanPod:
    return PodmanPod("pod", template, "manta:trial", overlay.files, "net", **fields)


def worker_of(overlay: Overlay) -> Any:
    """A copy of the worker's pod template, which the test may change."""
    return copy.deepcopy(overlay.cluster["workerGroupSpecs"][0]["template"])


def test_a_pod_has_the_rights_and_limits_of_its_manifest(overlay: Overlay) -> None:
    worker = pod(overlay, worker_of(overlay), hosts={"redis": "10.0.0.2"}, command=["ray", "--version"])
    arguments = worker.arguments(FOLDER)
    assert {
        "--user=10001:10001",
        "--cap-drop=ALL",
        "--read-only",
        "--read-only-tmpfs=false",
        "--security-opt=no-new-privileges",
        f"--memory={6 * 2**30}",
        "--cpus=4.0",
        "--add-host=redis:10.0.0.2",
        "--env=HOME=/tmp/home",
    } <= set(arguments)
    assert arguments[-3:] == ["manta:trial", "ray", "--version"]


def test_a_pod_has_the_volumes_of_its_manifest(overlay: Overlay) -> None:
    worker = pod(overlay, worker_of(overlay), command=["true"])
    mounts = {each.path: each for each in worker.mounts}
    assert (mounts["/tmp"].files, mounts["/tmp"].read_only) == ({}, False)
    assert mounts["/etc/manta"].read_only
    assert set(mounts["/etc/manta"].files) == {"redis-url", "review-secret"}
    assert {each.user for each in mounts.values()} == {10001}
    assert "--volume=/volumes/state:/etc/manta:ro" in worker.arguments(FOLDER)


def test_redis_has_its_configuration_and_its_users(overlay: Overlay) -> None:
    redis = pod(overlay, overlay.redis)
    files = {name for each in redis.mounts for name in each.files}
    assert {"redis.conf", "listen.conf", "memory.conf", "users.acl"} <= files
    assert redis.arguments(FOLDER)[-2:] == ["redis-server", "/etc/redis/conf/redis.conf"]


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(hostNetwork=True),
        lambda spec: spec.update(initContainers=[]),
        lambda spec: spec["securityContext"].update(supplementalGroups=[0]),
        lambda spec: spec["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        lambda spec: spec["volumes"].append({"name": "tmp", "hostPath": {"path": "/"}}),
        lambda spec: spec["containers"][0].update(args=["--more"]),
        lambda spec: spec["containers"][0]["securityContext"].update(privileged=True),
        lambda spec: spec["containers"][0]["securityContext"].update(procMount="Unmasked"),
        lambda spec: spec["containers"][0]["envFrom"].append({"secretRef": {"name": "manta-state"}}),
        lambda spec: spec["containers"][0]["volumeMounts"][0].update(subPath="there"),
        lambda spec: spec["containers"][0]["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
        lambda spec: spec["volumes"][1]["projected"]["sources"][0]["secret"].update(items=[]),
        lambda spec: spec["containers"].append({"name": "sidecar"}),
    ],
)
def test_what_the_trial_cannot_carry_out_is_refused(overlay: Overlay, change: Any) -> None:
    template = worker_of(overlay)
    change(template["spec"])
    with pytest.raises(UnknownFieldError):
        pod(overlay, template, command=["true"]).arguments(FOLDER)


def test_the_operator_starts_a_head_and_workers_that_join_it(overlay: Overlay) -> None:
    head = ray_command(overlay.cluster["headGroupSpec"])[-1].split()
    worker = ray_command(overlay.cluster["workerGroupSpecs"][0], "head:6379")[-1].split()
    assert {"--head", "--block", "--num-cpus=0", "--no-monitor"} <= set(head)
    assert {"--block", "--address=head:6379", f"--memory={6 * 2**30}"} <= set(worker)
    assert "--head" not in worker


def test_the_head_alone_has_the_password_of_ray(overlay: Overlay) -> None:
    secrets = overlay.files.secrets
    head, worker = (ray_environment(overlay.cluster, secrets, address) for address in ("", "head:6379"))
    assert head["RAY_AUTH_TOKEN"] == worker["RAY_AUTH_TOKEN"] == secrets["manta-ray-token"]["auth_token"]
    assert (head["REDIS_USERNAME"], head["REDIS_PASSWORD"]) == ("ray", secrets["manta-redis-ray"]["password"])
    assert "REDIS_PASSWORD" not in worker


def test_each_port_that_prometheus_reads_is_a_port_of_some_pod(overlay: Overlay) -> None:
    groups = [overlay.cluster["headGroupSpec"], *overlay.cluster["workerGroupSpecs"]]
    named = {name for group in groups for name in ports(group["template"]["spec"]["containers"][0])}
    assert overlay.scraped <= named


@pytest.mark.parametrize(("text", "expected"), [("512Mi", 512 * 2**20), ("6Gi", 6 * 2**30), ("1Ki", 1024)])
def test_a_quantity_is_read_in_bytes(text: str, expected: int) -> None:
    assert quantity(text) == expected


@pytest.mark.parametrize("text", ["6G", "6", "", "1.5Gi", "Gi"])
def test_a_quantity_in_another_unit_is_refused(text: str) -> None:
    with pytest.raises(UnknownFieldError, match="not a number"):
        quantity(text)


@pytest.mark.parametrize(("text", "expected"), [("2", 2.0), ("500m", 0.5)])
def test_cores_are_read(text: str, expected: float) -> None:
    assert cores(text) == expected
