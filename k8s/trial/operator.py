"""What KubeRay's operator 1.7.0 adds to the pods of a RayService (``common/pod.go``): the command that starts Ray, the
environment, and the volumes of shared memory and of Ray's logs.

What it adds for telemetry of its own, for TLS and for clusters of other kinds is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import ceil
from typing import Any

from k8s.trial.pod import Object, UnknownFieldError, check, cores, quantity

HEAD = "manta-head-svc.manta.svc.cluster.local"
"""The name of the head's service within the cluster."""
GCS_PORT = 6379
AGENT_PORT = 52365
METRICS_PORT = 8080

_GROUP_FIELDS = frozenset({"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"})
_OPERATORS_OWN = frozenset({"address", "block", "no-monitor", "redis-username", "redis-password"})
"""Parameters of ``ray start`` that the operator sets itself."""


def with_operators_volumes(group: Object) -> dict[str, Any]:
    """Returns the pod template of a group with the volumes that the operator adds. Raises UnknownFieldError for a field
    of the group that is not carried out."""
    check(group, _GROUP_FIELDS)
    template: dict[str, Any] = copy.deepcopy(dict(group["template"]))
    container = template["spec"]["containers"][0]
    memory = container["resources"]["limits"]["memory"]
    added = {"shared-mem": ("/dev/shm", {"medium": "Memory", "sizeLimit": memory})}
    if "groupName" not in group:
        added["ray-logs"] = ("/tmp/ray", {})
    for name, (path, empty) in added.items():
        template["spec"]["volumes"].append({"name": name, "emptyDir": empty})
        container["volumeMounts"].append({"name": name, "mountPath": path})
    return template


def ray_command(group: Object, cluster: Object) -> list[str]:
    """Returns the command of the Ray container of a group of ``cluster``, a RayService's ``rayClusterConfig``. Raises
    UnknownFieldError for a parameter of ``ray start`` that is the operator's to set."""
    if own := _OPERATORS_OWN & group["rayStartParams"].keys():
        raise UnknownFieldError(f"rayStartParams: the operator sets {', '.join(sorted(own))}")
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    parameters = {
        "num-cpus": str(ceil(cores(limits["cpu"]))),
        "memory": str(quantity(limits["memory"])),
        "metrics-export-port": str(METRICS_PORT),
        "dashboard-agent-listen-port": str(AGENT_PORT),
        "block": "true",
        **group["rayStartParams"],
        **({"address": f"{HEAD}:{GCS_PORT}"} if "groupName" in group else _of_head(cluster)),
    }
    flags = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in parameters.items()]
    start = " ".join(["ray start", *([] if "groupName" in group else ["--head"]), *flags])
    return ["/bin/bash", "-c", "--", f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {start}"]


def wait_command() -> list[str]:
    """Returns the command of ``wait-gcs-ready``, which a worker's pod runs before Ray's container: the operator's loop
    without its messages."""
    return ["/bin/bash", "-c", "--", f"until ray health-check --address {HEAD}:{GCS_PORT}; do sleep 1; done"]


def wait_template(template: Object) -> dict[str, Any]:
    """Returns a worker's pod template with the limits of ``wait-gcs-ready`` in place of those of Ray's container."""
    alone: dict[str, Any] = copy.deepcopy(dict(template))
    container = alone["spec"]["containers"][0]
    container["resources"] = {"limits": {"cpu": "200m", "memory": "256Mi"}}
    return alone


def ray_environment(
    group: Object, cluster: Object, secrets: Mapping[str, Mapping[str, str]], pod: str
) -> dict[str, str]:
    """Returns the environment that the operator gives to the Ray container of a group of ``cluster``. ``secrets`` has
    the Secrets that it names, and ``pod`` is the pod's name."""
    check(cluster["authOptions"], frozenset({"mode", "secretName"}))
    works = "groupName" in group
    common = {
        "RAY_AUTH_MODE": cluster["authOptions"]["mode"],
        "RAY_AUTH_TOKEN": secrets[cluster["authOptions"]["secretName"]]["auth_token"],
        "RAY_ADDRESS": f"{HEAD if works else '127.0.0.1'}:{GCS_PORT}",
        "RAY_PORT": str(GCS_PORT),
        "RAY_CLUSTER_NAME": "manta",
        "RAY_CLUSTER_NAMESPACE": "manta",
        "RAY_CLOUD_INSTANCE_ID": pod,
        "RAY_NODE_TYPE_NAME": group.get("groupName", "headgroup"),
        "KUBERAY_GEN_RAY_START_CMD": ray_command(group, cluster)[-1].partition("; ")[2],
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    if works:
        joins = {"FQ_RAY_IP": HEAD, "RAY_IP": HEAD.partition(".")[0], "RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
        return common | joins
    scales = {"RAY_enable_autoscaler_v2": "true"} if cluster.get("enableInTreeAutoscaling") else {}
    tags = {"RAY_USAGE_STATS_EXTRA_TAGS": "kuberay_version=v1.7.0;kuberay_crd=RayService"}
    return common | scales | tags | _fault_tolerance(cluster["gcsFaultToleranceOptions"], secrets)


def _of_head(cluster: Object) -> dict[str, str]:
    named = cluster["gcsFaultToleranceOptions"]
    return {
        # The autoscaler is a container of its own.
        **({"no-monitor": "true"} if cluster.get("enableInTreeAutoscaling") else {}),
        **({"redis-username": "$REDIS_USERNAME"} if "redisUsername" in named else {}),
        **({"redis-password": "$REDIS_PASSWORD"} if "redisPassword" in named else {}),
    }


def _fault_tolerance(options: Object, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    check(options, frozenset({"redisAddress", "redisUsername", "redisPassword"}))

    def value(each: Mapping[str, Any]) -> str:
        if "value" in each:
            return str(each["value"])
        reference = each["valueFrom"]["secretKeyRef"]
        return secrets[reference["name"]][reference["key"]]

    return {
        "RAY_REDIS_ADDRESS": options["redisAddress"],
        "REDIS_USERNAME": value(options["redisUsername"]),
        "REDIS_PASSWORD": value(options["redisPassword"]),
        "RAY_external_storage_namespace": "trial",  # the operator takes the cluster's UID
    }
