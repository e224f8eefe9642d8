"""``Overlay``: the objects of a kustomization, as the trial needs them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k8s.trial.pod import Files, Object


class OverlayError(RuntimeError):
    """The overlay cannot be built."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """``documents`` has all objects of the overlay, and of the Secrets that are not in it."""

    documents: tuple[Object, ...]

    @property
    def files(self) -> Files:
        """The ConfigMaps and the Secrets."""
        return Files(
            {each["metadata"]["name"]: each["data"] for each in self._of("ConfigMap")},
            {each["metadata"]["name"]: each["stringData"] for each in self._of("Secret")},
        )

    @property
    def redis(self) -> Object:
        """The pod template of Redis."""
        found: Object = self._one("StatefulSet")["spec"]["template"]
        return found

    @property
    def redis_claims(self) -> frozenset[str]:
        """The names of the volumes of Redis that are claims."""
        return frozenset(each["metadata"]["name"] for each in self._one("StatefulSet")["spec"]["volumeClaimTemplates"])

    @property
    def cluster(self) -> Object:
        """The Ray cluster of the RayService."""
        found: Object = self._one("RayService")["spec"]["rayClusterConfig"]
        return found

    @property
    def serve_config(self) -> dict[str, Any]:
        """The Serve config of the RayService."""
        found: dict[str, Any] = yaml.safe_load(self._one("RayService")["spec"]["serveConfigV2"])
        return found

    @property
    def scraped(self) -> frozenset[str]:
        """The names of the ports from which Prometheus reads."""
        return frozenset(each["port"] for each in self._one("PodMonitor")["spec"]["podMetricsEndpoints"])

    def _of(self, kind: str) -> list[Object]:
        return [each for each in self.documents if each["kind"] == kind]

    def _one(self, kind: str) -> Object:
        found = self._of(kind)
        if len(found) != 1:
            raise OverlayError(f"{len(found)} objects of the kind {kind}, not one")
        return found[0]


def build(folder: Path, secrets: list[dict[str, Any]]) -> Overlay:
    """Returns what ``kubectl kustomize`` makes of a folder, with ``secrets``. Raises OverlayError if it fails."""
    try:
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise OverlayError("kubectl is not installed") from error
    if done.returncode:
        raise OverlayError(done.stderr.strip())
    return Overlay((*filter(None, yaml.safe_load_all(done.stdout)), *secrets))
