"""What waits for Redis in prod outlives the pods, and has room for all routers."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import yaml

from cluster.config import StateConfig
from tests.k8s.overlays import objects, pod_templates

Object = dict[str, Any]
LOGS = 2  # the ledger's and the audit log's, each with ``journal_max_bytes``
CLUSTERS = 2  # at once, during an upgrade


def _router_pods() -> tuple[Object, Object]:
    """The worker group of the routers, and the arguments of the application."""
    (service,) = objects("prod", "RayService")
    groups = {each["groupName"]: each for each in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    return groups["cpu"], application["args"]


def test_the_journal_is_on_a_claim_that_all_routers_share() -> None:
    group, arguments = _router_pods()
    spec = group["template"]["spec"]
    directory = PurePosixPath(arguments["state"]["journal"])
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if directory.is_relative_to(each["mountPath"])]
    (volume,) = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    (claim,) = [
        each
        for each in objects("prod", "PersistentVolumeClaim")
        if each["metadata"]["name"] == volume["persistentVolumeClaim"]["claimName"]
    ]

    assert not mount.get("readOnly")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    routers = group["maxReplicas"] * arguments["ingress"]["max_replicas_per_node"]
    journal = arguments["state"].get("journal_max_bytes", StateConfig().journal_max_bytes)
    assert _bytes(claim["spec"]["resources"]["requests"]["storage"]) >= CLUSTERS * routers * LOGS * journal


def test_every_claim_of_a_pod_is_made() -> None:
    made = {each["metadata"]["name"] for each in objects("prod", "PersistentVolumeClaim")}
    named = {
        volume["persistentVolumeClaim"]["claimName"]
        for template in pod_templates("prod").values()
        for volume in template["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert named == made


def _bytes(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi")) * 1024**3
