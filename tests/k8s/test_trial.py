"""The pods of the trial have the rights, limits and files of the manifests, and what it cannot carry out is refused."""

from __future__ import annotations

import copy
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from k8s.secrets import first_secrets, redis_secrets
from k8s.trial.__main__ import Images, Trial, network
from k8s.trial.confinement import faults, parsed
from k8s.trial.operator import HEAD, ray_command, ray_environment, wait_command, wait_template, with_operators_volumes
from k8s.trial.overlay import Overlay
from k8s.trial.pod import PodmanPod, UnknownFieldError, cores, quantity
from k8s.trial.podman import PodmanError
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
        "--group-add=10001",
        "--http-proxy=false",
        "--cap-drop=ALL",
        "--read-only",
        "--read-only-tmpfs=false",
        "--security-opt=no-new-privileges",
        f"--memory={6 * 2**30}",
        "--cpus=4.0",
        "--add-host=redis:10.0.0.2",
        "--env=HOME=/tmp/home",
    } <= set(arguments)
    assert arguments[-3:] == ["--entrypoint=ray", "manta:trial", "--version"]


def test_a_pod_has_the_volumes_of_its_manifest(overlay: Overlay) -> None:
    worker = pod(overlay, worker_of(overlay), command=["true"])
    mounts = {each.path: each for each in worker.mounts}
    assert (mounts["/tmp"].files, mounts["/tmp"].read_only) == ({}, False)
    assert mounts["/etc/manta"].read_only
    assert set(mounts["/etc/manta"].files) == {"redis-url", "review-secret"}
    assert {each.group for each in mounts.values()} == {10001}
    assert "--volume=/volumes/state:/etc/manta:ro" in worker.arguments(FOLDER)


def test_redis_has_its_configuration_and_its_users(overlay: Overlay) -> None:
    redis = pod(overlay, overlay.redis, claims=overlay.redis_claims)
    files = {name for each in redis.mounts for name in each.files}
    assert {"redis.conf", "listen.conf", "memory.conf", "users.acl"} <= files
    assert redis.arguments(FOLDER)[-3:] == ["--entrypoint=redis-server", "manta:trial", "/etc/redis/conf/redis.conf"]
    assert {each.path for each in redis.mounts if not each.read_only} == {"/data"}


CONTAINER_CHANGES: dict[str, Any] = {
    "args": lambda each: each.update(args=["--more"]),
    "a privileged container": lambda each: each["securityContext"].update(privileged=True),
    "a capability": lambda each: each["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    "another context": lambda each: each["securityContext"].update(procMount="Unmasked"),
    "no context of capabilities": lambda each: each["securityContext"].pop("capabilities"),
    "variables of a Secret": lambda each: each["envFrom"].append({"secretRef": {"name": "manta-state"}}),
    "an unknown ConfigMap": lambda each: each["envFrom"].append({"configMapRef": {"name": "none"}}),
    "a part of a volume": lambda each: each["volumeMounts"][0].update(subPath="there"),
    "an unknown volume": lambda each: each["volumeMounts"].append({"name": "none", "mountPath": "/none"}),
    "a GPU": lambda each: each["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
    "a claim of a device": lambda each: each["resources"].update(claims=[]),
    "a port of the host": lambda each: each["ports"][0].update(hostPort=8000),
    "a hook": lambda each: each.update(lifecycle={"postStart": {"exec": {"command": ["true"]}}}),
    "a probe by TLS": lambda each: each["livenessProbe"]["httpGet"].update(scheme="HTTPS"),
    "a probe by gRPC": lambda each: each["livenessProbe"].update(grpc={"port": 1}),
}
POD_CHANGES: dict[str, Any] = {
    "the host's network": lambda spec: spec.update(hostNetwork=True),
    "another first container": lambda spec: spec.update(initContainers=[]),
    "another container": lambda spec: spec["containers"].append({"name": "sidecar"}),
    "more groups": lambda spec: spec["securityContext"].update(supplementalGroups=[0]),
    "no group of volumes": lambda spec: spec["securityContext"].pop("fsGroup"),
    "no filter": lambda spec: spec["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "a folder of the host": lambda spec: spec["volumes"].append({"name": "tmp", "hostPath": {"path": "/"}}),
    "a volume in memory": lambda spec: spec["volumes"][0]["emptyDir"].update(medium="Memory"),
    "a part of a Secret": lambda spec: spec["volumes"][1]["projected"]["sources"][0]["secret"].update(items=[]),
    "a token": lambda spec: spec["volumes"][1]["projected"]["sources"].append({"serviceAccountToken": {}}),
    "another mode": lambda spec: spec["volumes"][1]["projected"].update(defaultMode=0o777),
}


@pytest.mark.parametrize("name", [*CONTAINER_CHANGES, *POD_CHANGES])
def test_what_the_trial_cannot_carry_out_is_refused(overlay: Overlay, name: str) -> None:
    template = worker_of(overlay)
    if name in POD_CHANGES:
        POD_CHANGES[name](template["spec"])
    else:
        CONTAINER_CHANGES[name](template["spec"]["containers"][0])
    with pytest.raises(UnknownFieldError):
        pod(overlay, template, command=["true"]).arguments(FOLDER)


@pytest.mark.parametrize("change", [{"numOfHosts": 2}, {"labels": {}}, {"resources": {"CPU": "4"}}])
def test_what_a_group_asks_of_the_operator_beyond_its_pods_is_refused(overlay: Overlay, change: Any) -> None:
    group = {**overlay.cluster["workerGroupSpecs"][0], **change}
    with pytest.raises(UnknownFieldError, match=next(iter(change))):
        with_operators_volumes(group)


def test_a_parameter_that_the_operator_sets_is_refused(overlay: Overlay) -> None:
    group = {**overlay.cluster["headGroupSpec"], "rayStartParams": {"redis-password": "mine"}}
    with pytest.raises(UnknownFieldError, match="redis-password"):
        ray_command(group, overlay.cluster)


def test_the_operator_starts_a_head_and_workers_that_join_it(overlay: Overlay) -> None:
    head = ray_command(overlay.cluster["headGroupSpec"], overlay.cluster)[-1].split()
    worker = ray_command(overlay.cluster["workerGroupSpecs"][0], overlay.cluster)[-1].split()
    assert {"--head", "--block", "--num-cpus=0", "--no-monitor", "--redis-password=$REDIS_PASSWORD"} <= set(head)
    assert {"--block", f"--address={HEAD}:6379", f"--memory={6 * 2**30}"} <= set(worker)
    assert not {"--head", "--no-monitor", "--redis-password=$REDIS_PASSWORD"} & set(worker)


def test_the_operator_gives_ray_pods_shared_memory_as_large_as_their_limit(overlay: Overlay) -> None:
    head, worker = (
        pod(overlay, with_operators_volumes(group), command=["true"])
        for group in (overlay.cluster["headGroupSpec"], overlay.cluster["workerGroupSpecs"][0])
    )
    assert f"--shm-size={3 * 2**30}" in head.arguments(FOLDER)
    assert f"--shm-size={6 * 2**30}" in worker.arguments(FOLDER)
    assert "/tmp/ray" in {each.path for each in head.mounts} - {each.path for each in worker.mounts}


def test_the_container_before_ray_has_limits_of_its_own(overlay: Overlay) -> None:
    before = pod(overlay, wait_template(worker_of(overlay)), command=wait_command())
    assert (before.memory, before.cores) == (256 * 2**20, 0.2)


def test_the_head_alone_has_the_password_of_ray(overlay: Overlay) -> None:
    cluster, secrets = overlay.cluster, overlay.files.secrets
    head = ray_environment(cluster["headGroupSpec"], cluster, secrets, "head")
    worker = ray_environment(cluster["workerGroupSpecs"][0], cluster, secrets, "worker")
    assert head["RAY_AUTH_TOKEN"] == worker["RAY_AUTH_TOKEN"] == secrets["manta-ray-token"]["auth_token"]
    assert (head["REDIS_USERNAME"], head["REDIS_PASSWORD"]) == ("ray", secrets["manta-redis-ray"]["password"])
    assert worker.keys() - head.keys() == {"FQ_RAY_IP", "RAY_IP", "RAY_gcs_rpc_server_reconnect_timeout_s"}
    assert head.keys() - worker.keys() == {
        "RAY_enable_autoscaler_v2",
        "RAY_USAGE_STATS_EXTRA_TAGS",
        "RAY_REDIS_ADDRESS",
        "REDIS_USERNAME",
        "REDIS_PASSWORD",
        "RAY_external_storage_namespace",
    }
    assert (head["RAY_ADDRESS"], worker["RAY_ADDRESS"]) == ("127.0.0.1:6379", f"{HEAD}:6379")


STATUS = """\
Uid:	10001	10001	10001	10001
Gid:	10001	10001	10001	10001
Groups:	10001
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	0000000000000000
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
"""
MOUNTS = (
    "500 400 0:50 / / ro,relatime - overlay overlay rw",
    "501 500 0:51 / /proc rw,nosuid - proc proc rw",
    "502 500 0:52 / /dev/shm rw,nosuid - tmpfs shm rw",
    "503 500 254:0 /a /tmp rw,relatime - ext4 /dev/vda rw",
    "504 500 254:0 /b /var/lib/manta rw,relatime - ext4 /dev/vda rw",
    "505 500 254:0 /c /etc/manta ro,relatime - ext4 /dev/vda rw",
)


def test_a_pod_that_is_confined_as_its_manifest_says_has_no_faults(overlay: Overlay) -> None:
    assert faults(pod(overlay, worker_of(overlay)), parsed(STATUS), MOUNTS) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Uid:	10001	10001", "Uid:	10001	0", "user"),
        ("Gid:	10001", "Gid:	0", "group"),
        ("Groups:	10001", "Groups:	10001 0", "groups"),
        ("CapBnd:	0000000000000000", "CapBnd:	0000000000001000", "CapBnd"),
        ("NoNewPrivs:	1", "NoNewPrivs:	0", "new privileges"),
        ("Seccomp:	2", "Seccomp:	0", "seccomp"),
    ],
)
def test_each_right_beyond_the_manifest_is_a_fault(overlay: Overlay, old: str, new: str, fault: str) -> None:
    (found,) = faults(pod(overlay, worker_of(overlay)), parsed(STATUS.replace(old, new)), MOUNTS)
    assert fault in found


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("500 400 0:50 / / rw,relatime - overlay overlay rw", "/"),
        ("505 500 254:0 /c /etc/manta rw,relatime - ext4 /dev/vda rw", "/etc/manta"),
        ("506 500 0:53 / /var/tmp rw,nosuid - tmpfs tmpfs rw", "/var/tmp"),
    ],
)
def test_what_can_be_written_beside_the_volumes_is_a_fault(overlay: Overlay, line: str, path: str) -> None:
    assert faults(pod(overlay, worker_of(overlay)), parsed(STATUS), (*MOUNTS, line)) == [f"{path} can be written"]


PODMAN = """\
#!/bin/sh
echo "$@" >> {log}
case "$1" in run) echo no room >&2; exit 125;; esac
"""


def test_a_pod_that_cannot_be_started_is_told_and_removed(
    overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "podman").write_text(PODMAN.format(log=tmp_path / "log"), encoding="utf-8")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PodmanError, match="no room"), network() as name, ExitStack() as pods:
        Trial(overlay, Images("manta", "redis"), name, tmp_path / "volumes", pods).start()
    calls = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert [each.split()[0] for each in calls] == ["network", "run", "rm", "network"]
    assert calls[2].endswith(f"{name}-redis")
    assert calls[3].endswith(f"rm --force {name}")


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
