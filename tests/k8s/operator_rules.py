"""What KubeRay's operator refuses in a RayService beside its schema, as far as it says so before it makes pods."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

MAX_NAME = 47  # characters: the operator appends to it for the names of clusters, pods and services
_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_RESOURCE_PARAMS = ("num-cpus", "num-gpus", "memory", "resources")
_REDIS_VARIABLES = ("REDIS_PASSWORD", "REDIS_USERNAME", "RAY_REDIS_ADDRESS")
_START_COMMAND = "KUBERAY_GEN_AUTOSCALER_START_CMD"
_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"
_MANAGED_GATES = ("networkPolicy", "tlsOptions", "historyServerOptions")


def violations(service: Object) -> list[str]:
    """What the operator would refuse of a RayService; empty if nothing."""
    spec = service["spec"]
    cluster = spec["rayClusterConfig"]
    return [
        *_names(service),
        *_upgrade(spec),
        *_groups(cluster),
        *_fault_tolerance(service),
        *_authentication(cluster),
        *_autoscaler(cluster),
        *_gates(cluster),
        *_serve_port(spec),
    ]


def _names(service: Object) -> Iterator[str]:
    name = service["metadata"]["name"]
    if len(name) > MAX_NAME or not _NAME.match(name):
        yield f"the name {name} is no DNS label of at most {MAX_NAME} characters"
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]
    if head.get("headService", {}).get("metadata", {}).get("name"):
        yield "headService.metadata.name must be unset"


def _upgrade(spec: Object) -> Iterator[str]:
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    strategy = spec.get("upgradeStrategy", {})
    if strategy.get("type", "NewCluster") not in ("NewCluster", "NewClusterWithIncrementalUpgrade", "None"):
        yield f"there is no upgrade strategy {strategy['type']}"
    if strategy.get("type") != "NewClusterWithIncrementalUpgrade":
        return
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield "an incremental upgrade needs the autoscaler"
    options = strategy.get("clusterUpgradeOptions") or {}
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    if not 0 <= step <= surge <= 100:
        yield "0 <= stepSizePercent <= maxSurgePercent <= 100 does not hold"
    if options.get("intervalSeconds", 0) <= 0:
        yield "intervalSeconds must be above 0"
    if not options.get("gatewayClassName"):
        yield "an incremental upgrade needs gatewayClassName"


def _groups(cluster: Object) -> Iterator[str]:
    workers = cluster.get("workerGroupSpecs", [])
    for name, group in [("head", cluster["headGroupSpec"]), *((each["groupName"], each) for each in workers)]:
        params = group.get("rayStartParams", {})
        if not group["template"]["spec"].get("containers"):
            yield f"{name} has no container"
        if group.get("resources") and any(params.get(each) for each in _RESOURCE_PARAMS):
            yield f"{name} has resources both in rayStartParams and in resources"
        if "labels" in params:
            yield f"{name} has labels in rayStartParams"
    names = [each["groupName"] for each in workers]
    if len(names) != len(set(names)):
        yield "two worker groups have the same name"
    for each in workers:
        lowest, highest = each.get("minReplicas"), each.get("maxReplicas")
        if lowest is None or highest is None:  # the operator fills them in; a reader should see them
            yield f"{each['groupName']} lacks minReplicas or maxReplicas"
        elif not 0 <= lowest <= each.get("replicas", lowest) <= highest:
            yield f"{each['groupName']}: 0 <= minReplicas <= replicas <= maxReplicas does not hold"


def _fault_tolerance(service: Object) -> Iterator[str]:
    cluster = service["spec"]["rayClusterConfig"]
    options = cluster.get("gcsFaultToleranceOptions")
    annotations = service["metadata"].get("annotations", {})
    head = cluster["headGroupSpec"]
    names = {each["name"] for each in head["template"]["spec"]["containers"][0].get("env", [])}
    if options is None:
        if "RAY_REDIS_ADDRESS" in names:
            yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
        return
    if annotations.get("ray.io/ft-enabled") or annotations.get("ray.io/external-storage-namespace"):
        yield "fault tolerance both in annotations and in options"
    for name in sorted(names.intersection(_REDIS_VARIABLES)):
        yield f"{name} is set both in the head's environment and in options"
    params = head.get("rayStartParams", {})
    for param in ("redis-password", "redis-username"):
        if params.get(param):
            yield f"{param} is set both in rayStartParams and in options"
    if options.get("backend", "redis") == "redis" and options.get("storage"):
        yield "gcsFaultToleranceOptions.storage is for rocksdb alone"


def _authentication(cluster: Object) -> Iterator[str]:
    options = cluster.get("authOptions", {})
    if options.get("enableK8sTokenAuth"):
        yield "Kubernetes' tokens are not supported for a RayService"
    if options.get("mode") == "token" and _version(cluster.get("rayVersion", "")) < (2, 52):
        yield "token authentication needs rayVersion 2.52 or later"


def _autoscaler(cluster: Object) -> Iterator[str]:
    groups = [("head", cluster["headGroupSpec"])]
    groups += [(each["groupName"], each) for each in cluster.get("workerGroupSpecs", [])]
    v2 = cluster.get("autoscalerOptions", {}).get("version") == "v2"
    for name, group in groups:
        if v2 and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield f"{name}: autoscaler v2 needs restartPolicy Never"
        if group.get("suspend"):
            yield f"{name} is suspended"
        if not v2 and group.get("idleTimeoutSeconds") is not None:
            yield f"{name}: idleTimeoutSeconds needs autoscaler v2"
    options = cluster.get("autoscalerOptions", {})
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    if _START_COMMAND in {each["name"] for each in options.get("env", [])}:
        yield f"autoscalerOptions.env has {_START_COMMAND}, which the operator sets"
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    if options.get("version") and _AUTOSCALER_V2 in {each["name"] for each in head.get("env", [])}:
        yield f"{_AUTOSCALER_V2} is set beside autoscalerOptions.version"


def _gates(cluster: Object) -> Iterator[str]:
    for option in _MANAGED_GATES:
        if cluster.get(option):
            yield f"{option} needs a feature gate that is off by default"
    if cluster.get("upgradeStrategy"):
        yield "rayClusterConfig.upgradeStrategy is for a RayCluster of its own"


def _serve_port(spec: Object) -> Iterator[str]:
    head = spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    if not any(each.get("name") == "serve" for each in head.get("ports", [])):
        yield "the head has no port named serve, so there would be no service"


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
