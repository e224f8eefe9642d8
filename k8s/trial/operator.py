"""What KubeRay's operator adds to the pods of a RayService (operator 1.6, ray-operator/controllers/ray/common/pod.go):
the command that starts Ray, and the environment of fault tolerance and of token authentication.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k8s.trial.pod import Object, quantity

HEAD = "manta-head-svc"
"""The name of the head's service."""
GCS_PORT = 6379
AGENT_PORT = 52365
METRICS_PORT = 8080

_HEAD_PARAMETERS = {
    "no-monitor": "true",  # the autoscaler is a container of its own
    "redis-username": "$REDIS_USERNAME",
    "redis-password": "$REDIS_PASSWORD",
}


def ray_command(group: Object, address: str = "") -> list[str]:
    """Returns the command of the Ray container of a group. ``address``: of the GCS that it joins; "": it is the
    head."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    parameters = {
        **({"address": address} if address else _HEAD_PARAMETERS),
        "metrics-export-port": str(METRICS_PORT),
        "dashboard-agent-listen-port": str(AGENT_PORT),
        "memory": str(quantity(limits["memory"])),
        **group["rayStartParams"],
    }
    flags = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in parameters.items()]
    start = " ".join(["ray start", *([] if address else ["--head"]), "--block", *flags])
    return ["/bin/bash", "-c", "--", f"ulimit -n 65536; {start}"]


def ray_environment(cluster: Object, secrets: Mapping[str, Mapping[str, str]], address: str = "") -> dict[str, str]:
    """Returns the environment that the operator gives to a Ray container. ``cluster`` is the RayService's
    ``rayClusterConfig``, ``secrets`` the Secrets that it names, and ``address`` as in ``ray_command``."""
    token = secrets[cluster["authOptions"]["secretName"]]["auth_token"]
    common = {
        "RAY_AUTH_MODE": cluster["authOptions"]["mode"],
        "RAY_AUTH_TOKEN": token,
        "RAY_ADDRESS": address or f"127.0.0.1:{GCS_PORT}",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    }
    return common if address else common | _fault_tolerance(cluster["gcsFaultToleranceOptions"], secrets)


def _fault_tolerance(options: Object, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    def value(each: Mapping[str, Any]) -> str:
        if "value" in each:
            return str(each["value"])
        reference = each["valueFrom"]["secretKeyRef"]
        return secrets[reference["name"]][reference["key"]]

    return {
        "RAY_REDIS_ADDRESS": options["redisAddress"],
        "REDIS_USERNAME": value(options["redisUsername"]),
        "REDIS_PASSWORD": value(options["redisPassword"]),
        "RAY_external_storage_namespace": "trial",
    }
