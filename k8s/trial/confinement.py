"""``faults``: what the kernel grants to a pod's first process beyond its manifest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from k8s.trial.pod import PodmanPod

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
OWN = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv", "/run/secrets")
"""Where podman mounts something itself."""


def parsed(status: str) -> dict[str, str]:
    """Returns the fields of a ``/proc/PID/status`` by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}


def faults(pod: PodmanPod, status: Mapping[str, str], mountinfo: Iterable[str]) -> list[str]:
    """Returns what is wrong with the confinement of a pod; [] if nothing. ``status`` has the fields of its first
    process, ``mountinfo`` the lines of its ``/proc/PID/mountinfo`` (proc(5))."""
    user, group = pod.user
    groups = {group, pod.template["spec"]["securityContext"]["fsGroup"]}
    found = [f"{name} {status[name]}" for name in CAPABILITIES if int(status[name], 16)]
    found += [f"user {status['Uid']}"] * (set(status["Uid"].split()) != {str(user)})
    found += [f"group {status['Gid']}"] * (set(status["Gid"].split()) != {str(group)})
    found += [f"groups {status['Groups']}"] * (not set(map(int, status["Groups"].split())) <= groups)
    found += ["no seccomp filter"] * (status["Seccomp"] != "2")
    found += ["new privileges"] * (status["NoNewPrivs"] != "1")
    writable = {mount.path for mount in pod.mounts if not mount.read_only}
    for line in mountinfo:
        fields = line.split()
        path, options = fields[4], fields[5].split(",")
        if "rw" in options and path not in writable and not _of_podman(path):
            found.append(f"{path} can be written")
    return found


def _of_podman(path: str) -> bool:
    return any(path == own or path.startswith(f"{own}/") for own in OWN)
