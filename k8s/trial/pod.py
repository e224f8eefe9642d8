"""``PodmanPod``: a pod of the manifests as the arguments of ``podman run``.

Only what the manifests use is known. What podman cannot carry out is named in one of the sets below, or is an error:
nothing that the manifests ask for is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]
"""A Kubernetes object, or a part of one."""

POD_NOT_TRIED = frozenset(
    {"priorityClassName", "topologySpreadConstraints", "terminationGracePeriodSeconds", "restartPolicy"}
    | {"enableServiceLinks", "serviceAccountName", "automountServiceAccountToken"}
)
"""Fields of a pod that are not carried out: scheduling, its end, and the accounts of Kubernetes."""

CONTAINER_NOT_TRIED = frozenset({"name", "image", "ports", "lifecycle"})
"""Fields of a container that are not carried out: containers of one network need no ports published, the image is the
caller's, and the pause before the end (the only ``lifecycle`` that is known) has no load balancer to wait for."""

PROBES = frozenset({"startupProbe", "livenessProbe", "readinessProbe"})
SHARED_MEMORY = "/dev/shm"

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class UnknownFieldError(ValueError):
    """The manifests have a field or a value that the trial does not carry out, or lack one that it needs."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of the ConfigMaps and Secrets of a namespace, by the object's name and the file's."""

    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume in a container: its name, the path there, the files that it has from the start, and the group that may
    use it."""

    name: str
    path: str
    read_only: bool
    files: Mapping[str, str]
    group: int


@dataclass(frozen=True, slots=True)
class PodmanPod:
    """A pod with a single container. ``template`` is its pod template, ``name`` its name and that of its host.
    ``hosts`` has the addresses of services by name. ``claims`` are the names of volumes that are claims, and empty
    here. ``command`` and ``environment`` are what an operator adds."""

    name: str
    template: Object
    image: str
    files: Files
    network: str
    hosts: Mapping[str, str] = field(default_factory=dict)
    claims: frozenset[str] = frozenset()
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

    @property
    def user(self) -> tuple[int, int]:
        """Its user and its group."""
        context = self.template["spec"]["securityContext"]
        return context["runAsUser"], context["runAsGroup"]

    def arguments(self, folder: Path) -> list[str]:
        """Returns the arguments of ``podman run``, with the volumes in subfolders of ``folder`` that have their names.
        Raises UnknownFieldError for what it does not know."""
        container, spec = self.container, self.template["spec"]
        check(
            container,
            CONTAINER_NOT_TRIED | PROBES | {"command", "envFrom", "resources", "securityContext", "volumeMounts"},
        )
        check(spec, POD_NOT_TRIED | {"containers", "securityContext", "volumes"})
        check(container["resources"], frozenset({"limits", "requests"}))
        check(container["resources"]["limits"], frozenset({"cpu", "memory", "ephemeral-storage"}))
        check_ports(container.get("ports", ()))
        check_lifecycle(container.get("lifecycle", {}))
        for probe in PROBES & container.keys():
            check_probe(container[probe])
        program, *words = self.command or container.get("command") or _missing("command")
        return [
            *("--name", self.name, "--hostname", self.name, "--network", self.network),
            *(f"--add-host={name}:{address}" for name, address in self.hosts.items()),
            *rights(spec["securityContext"], container["securityContext"]),
            *(f"--memory={self.memory}", f"--memory-swap={self.memory}", f"--cpus={self.cores}"),
            *("--pids-limit=-1", "--http-proxy=false", "--no-healthcheck"),
            *(f"--env={name}={value}" for name, value in self._environment().items()),
            *self._shared_memory(),
            *(f"--volume={folder / each.name}:{each.path}{':ro' if each.read_only else ''}" for each in self.mounts),
            f"--entrypoint={program}",
            self.image,
            *words,
        ]

    @property
    def cores(self) -> float:
        """The limit of its cores."""
        return cores(self.container["resources"]["limits"]["cpu"])

    @property
    def mounts(self) -> list[Mount]:
        """The volumes of the container, but for shared memory."""
        group, found = self.template["spec"]["securityContext"]["fsGroup"], []
        for each in self.container.get("volumeMounts", ()):
            check(each, frozenset({"name", "mountPath", "readOnly"}))
            if each["mountPath"] != SHARED_MEMORY:
                files = self._files(self._volume(each["name"]))
                found.append(Mount(each["name"], each["mountPath"], each.get("readOnly", False), files, group))
        return found

    def _shared_memory(self) -> list[str]:
        for each in self.container.get("volumeMounts", ()):
            if each["mountPath"] == SHARED_MEMORY:
                empty = self._volume(each["name"]).get("emptyDir", {})
                check(empty, frozenset({"medium", "sizeLimit"}))
                return [f"--shm-size={quantity(empty['sizeLimit'])}"]
        return []

    def _volume(self, name: str) -> Object:
        """Returns the volume ``name``; one without a source for a claim."""
        volumes = {each["name"]: each for each in self.template["spec"].get("volumes", ())}
        if name in volumes:
            found: Object = volumes[name]
            return found
        if name in self.claims:
            return {"name": name}
        raise UnknownFieldError(f"{self.name} has no volume {name}")

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            check(source, frozenset({"configMapRef"}))
            found |= _named(self.files.config_maps, source["configMapRef"]["name"])
        return found | dict(self.environment)

    def _files(self, volume: Object) -> dict[str, str]:
        check(volume, frozenset({"name", "emptyDir", "configMap", "secret", "projected"}))
        check(volume.get("emptyDir", {}), frozenset({"sizeLimit"}))
        projected = volume.get("projected", {})
        check(projected, frozenset({"sources", "defaultMode"}))
        _check_mode(projected)
        found: dict[str, str] = {}
        for source in projected.get("sources", [volume]):
            check(source, frozenset({"name", "emptyDir", "configMap", "secret", "projected"}))
            if (config_map := source.get("configMap")) is not None:
                check(config_map, frozenset({"name"}))
                found |= _named(self.files.config_maps, config_map["name"])
            if (secret := source.get("secret")) is not None:
                check(secret, frozenset({"secretName", "name", "defaultMode"}))
                _check_mode(secret)
                found |= _named(self.files.secrets, secret.get("secretName") or secret["name"])
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


def rights(pod: Object, container: Object) -> list[str]:
    """Returns the arguments for the security contexts of a pod and its container. Raises UnknownFieldError if one has
    an unknown field, lacks a known one, or grants a right that the restricted standard forbids."""
    of_pod = frozenset({"runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy", "seccompProfile"})
    of_container = frozenset(
        {"allowPrivilegeEscalation", "privileged", "readOnlyRootFilesystem", "runAsNonRoot", "capabilities"}
    )
    for context, fields in ((pod, of_pod), (container, of_container)):
        check(context, fields)
        if missing := fields - context.keys():
            raise UnknownFieldError(f"securityContext without {', '.join(sorted(missing))}")
    granted = (
        container["privileged"],
        container["allowPrivilegeEscalation"],
        not container["readOnlyRootFilesystem"],
        container["capabilities"] != {"drop": ["ALL"]},
        pod["seccompProfile"] != {"type": "RuntimeDefault"},
    )
    if any(granted):
        raise UnknownFieldError(f"a securityContext that is not the restricted one: {pod}, {container}")
    return [
        f"--user={pod['runAsUser']}:{pod['runAsGroup']}",
        f"--group-add={pod['fsGroup']}",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        *("--read-only", "--read-only-tmpfs=false"),
    ]


def check(part: Object, fields: frozenset[str]) -> None:
    """Raises UnknownFieldError if ``part`` has a field that is not one of ``fields``."""
    if unknown := part.keys() - fields:
        raise UnknownFieldError(f"unknown: {', '.join(sorted(unknown))}")


def check_ports(ports: Iterable[Object]) -> None:
    """Raises UnknownFieldError for a port that is more than the name of a number."""
    for port in ports:
        check(port, frozenset({"name", "containerPort", "protocol"}))


def check_lifecycle(lifecycle: Object) -> None:
    """Raises UnknownFieldError for any ``lifecycle`` but a pause before the end."""
    check(lifecycle, frozenset({"preStop"}))
    check(lifecycle.get("preStop", {}), frozenset({"sleep"}))


def check_probe(probe: Object) -> None:
    """Raises UnknownFieldError for a probe that the trial asks otherwise than the kubelet."""
    timing = frozenset({"periodSeconds", "timeoutSeconds", "failureThreshold"})
    check(probe, timing | {"exec", "httpGet"})
    check(probe.get("httpGet", {}), frozenset({"path", "port"}))
    check(probe.get("exec", {}), frozenset({"command"}))


def _check_mode(volume: Object) -> None:
    if volume.get("defaultMode", 0o440) != 0o440:
        raise UnknownFieldError(f"a defaultMode that is not 0440: {volume['defaultMode']:o}")


def _named(objects: Mapping[str, Mapping[str, str]], name: str) -> Mapping[str, str]:
    if name not in objects:
        raise UnknownFieldError(f"no ConfigMap or Secret {name}")
    return objects[name]


def _missing(what: str) -> Sequence[str]:
    raise UnknownFieldError(f"a container without {what}")
