"""``PodmanPod``: a pod of the manifests as the arguments of ``podman run``.

Only what the manifests use is known. Any other field of a pod or a container is an error, so that nothing which the
manifests ask for is left out in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]
"""A Kubernetes object, or a part of one."""

SCHEDULED = frozenset(
    {"priorityClassName", "topologySpreadConstraints", "terminationGracePeriodSeconds", "restartPolicy"}
    | {"enableServiceLinks", "serviceAccountName", "automountServiceAccountToken", "nodeSelector", "tolerations"}
)
"""Fields of a pod that only a cluster can carry out."""

ASKED = frozenset({"name", "image", "ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"})
"""Fields of a container that are no arguments of ``podman run``."""

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class UnknownFieldError(ValueError):
    """The manifests have a field that the trial does not know."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of the ConfigMaps and Secrets of a namespace, by the object's name and the file's."""

    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume in a container: its name, the path there, the files that it has from the start, and its owner."""

    name: str
    path: str
    read_only: bool
    files: Mapping[str, str]
    user: int


@dataclass(frozen=True, slots=True)
class PodmanPod:
    """A pod with a single container. ``template`` is its pod template, ``name`` its name and that of its host.
    ``hosts`` has the addresses of services by name. ``command`` and ``environment`` are what an operator adds."""

    name: str
    template: Object
    image: str
    files: Files
    network: str
    hosts: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def container(self) -> Object:
        """The only container. Raises UnknownFieldError if there are others."""
        (container, *others) = self.template["spec"]["containers"]
        if others:
            raise UnknownFieldError(f"{self.name}: a pod of several containers")
        known: Object = container
        return known

    @property
    def memory(self) -> int:
        """The limit of its memory, in bytes."""
        return quantity(self.container["resources"]["limits"]["memory"])

    def arguments(self, folder: Path) -> list[str]:
        """Returns the arguments of ``podman``, with the volumes in subfolders of ``folder`` that have their names.
        Raises UnknownFieldError for what it does not know."""
        container = self.container
        _known(container, ASKED | {"command", "envFrom", "resources", "securityContext", "volumeMounts"})
        _known(container["resources"]["limits"], frozenset({"cpu", "memory", "ephemeral-storage"}))
        _known(self.template["spec"], SCHEDULED | {"containers", "securityContext", "volumes"})
        return [
            *("run", "--detach", "--name", self.name, "--hostname", self.name, "--network", self.network),
            *(f"--add-host={name}:{address}" for name, address in self.hosts.items()),
            *_rights(self.template["spec"]["securityContext"], container["securityContext"]),
            *(f"--memory={self.memory}", f"--memory-swap={self.memory}"),
            f"--cpus={cores(container['resources']['limits']['cpu'])}",
            *(f"--env={name}={value}" for name, value in self._environment().items()),
            *(f"--volume={folder / each.name}:{each.path}{':ro' if each.read_only else ''}" for each in self.mounts),
            self.image,
            *(self.command or container["command"]),
        ]

    @property
    def mounts(self) -> list[Mount]:
        """The volumes of the container. A claim is an empty one."""
        spec = self.template["spec"]
        volumes = {each["name"]: each for each in spec.get("volumes", ())}
        found = []
        for each in self.container.get("volumeMounts", ()):
            _known(each, frozenset({"name", "mountPath", "readOnly"}))
            files = self._files(volumes.get(each["name"], {}))
            user = spec["securityContext"]["fsGroup"]
            found.append(Mount(each["name"], each["mountPath"], each.get("readOnly", False), files, user))
        return found

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            _known(source, frozenset({"configMapRef"}))
            found |= self.files.config_maps[source["configMapRef"]["name"]]
        return found | dict(self.environment)

    def _files(self, volume: Object) -> dict[str, str]:
        _known(volume, frozenset({"name", "emptyDir", "configMap", "secret", "projected"}))
        _known(volume.get("projected", {}), frozenset({"sources", "defaultMode"}))
        found: dict[str, str] = {}
        for source in volume.get("projected", {}).get("sources", [volume]):
            if (config_map := source.get("configMap")) is not None:
                _known(config_map, frozenset({"name"}))
                found |= self.files.config_maps[config_map["name"]]
            if (secret := source.get("secret")) is not None:
                _known(secret, frozenset({"secretName", "name", "defaultMode"}))
                found |= self.files.secrets[secret.get("secretName") or secret["name"]]
        return found


def quantity(text: str) -> int:
    """Returns a quantity of Kubernetes with a binary unit, such as ``6Gi``, in bytes. Raises UnknownFieldError for any
    other."""
    number, unit = text[:-2], text[-2:]
    if unit not in _UNITS or not number.isdigit():
        raise UnknownFieldError(f"not a number with one of the units {', '.join(_UNITS)}: {text}")
    return int(number) * _UNITS[unit]


def cores(text: str) -> float:
    """Returns a quantity of Kubernetes such as ``2`` or ``500m``, in cores."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _rights(pod: Object, container: Object) -> list[str]:
    """Returns what the kubelet would make of the security contexts."""
    _known(
        pod, frozenset({"runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy", "seccompProfile"})
    )
    _known(
        container,
        frozenset({"allowPrivilegeEscalation", "privileged", "readOnlyRootFilesystem", "runAsNonRoot", "capabilities"}),
    )
    if pod["seccompProfile"] != {"type": "RuntimeDefault"} or container["privileged"]:
        raise UnknownFieldError(f"a security context without the runtime's own filter: {pod}, {container}")
    return [
        f"--user={pod['runAsUser']}:{pod['runAsGroup']}",
        *(f"--cap-drop={each}" for each in container["capabilities"]["drop"]),
        *(["--read-only", "--read-only-tmpfs=false"] if container["readOnlyRootFilesystem"] else []),
        *([] if container["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]),
    ]


def _known(part: Object, fields: frozenset[str]) -> None:
    if unknown := part.keys() - fields:
        raise UnknownFieldError(f"unknown: {', '.join(sorted(unknown))}")
