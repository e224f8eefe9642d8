"""What ``kubectl kustomize`` makes of the overlays, and the pods that the operator makes of a RayService."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import MantaConfig

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("dev", "prod")

Object = dict[str, Any]


def kustomize() -> list[str]:
    """The command that builds a kustomization; skips the test where there is none."""
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    if binary := shutil.which("kustomize"):
        return [binary, "build"]
    pytest.skip("neither kubectl nor kustomize is installed")


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has libyaml


@cache
def _built(folder: Path) -> list[Object]:
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, Loader=LOADER) if each]


def built(overlay: str) -> list[Object]:
    """The objects of an overlay, in a copy that the test may change."""
    return copy.deepcopy(_built(ROOT / "k8s" / "overlays" / overlay))


def objects(overlay: str, kind: str) -> list[Object]:
    """The objects of one kind in an overlay."""
    return [each for each in built(overlay) if each["kind"] == kind]


def config_map(overlay: str, name: str) -> Object:
    """The generated ConfigMap ``name`` of an overlay, whose name ends with a digest."""
    (found,) = [each for each in objects(overlay, "ConfigMap") if each["metadata"]["name"].startswith(f"{name}-")]
    return found


def ray_service(overlay: str) -> Object:
    """The only RayService of an overlay."""
    (service,) = objects(overlay, "RayService")
    return service


def ray_groups(service: Object) -> Iterator[tuple[str, Object]]:
    """The groups of a RayService by name, the head's first."""
    cluster = service["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group


def pod_templates(overlay: str) -> dict[str, Object]:
    """Every pod template of an overlay, by a name for messages."""
    found = {f"RayService/{name}": group["template"] for name, group in ray_groups(ray_service(overlay))}
    for each in built(overlay):
        if each["kind"] in ("StatefulSet", "Deployment", "Job", "DaemonSet"):
            found[f"{each['kind']}/{each['metadata']['name']}"] = each["spec"]["template"]
    return found


def as_pod(template: Object) -> Object:
    """A pod template as a Pod, whose schema is the same and which more tools know."""
    return {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}


def serve_config(overlay: str) -> Object:
    """The Serve config of an overlay's RayService."""
    config: Object = yaml.load(ray_service(overlay)["spec"]["serveConfigV2"], Loader=LOADER)
    return config


def manta_config(overlay: str) -> MantaConfig:
    """The settings of the only application of an overlay."""
    (application,) = serve_config(overlay)["applications"]
    return MantaConfig.model_validate(application["args"])
