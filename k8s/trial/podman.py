"""``Podman``: containers on this machine, their addresses, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from k8s.trial.pod import Mount, PodmanPod


class PodmanError(RuntimeError):
    """A command of podman has failed. The message has its last words."""


def podman(*arguments: str, timeout_s: float = 120.0) -> str:
    """Returns what ``podman`` prints. Raises PodmanError if it fails or takes longer than ``timeout_s`` seconds."""
    try:
        done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise PodmanError(f"podman {arguments[0]}: no end after {timeout_s:g} s") from error
    if done.returncode:
        raise PodmanError(f"podman {arguments[0]}: {done.stderr.strip()[-1000:]}")
    return f"{done.stdout.strip()}\n{done.stderr.strip()}".strip() if arguments[0] == "logs" else done.stdout.strip()


class Container:
    """A pod that runs. ``folder`` is an empty folder for its volumes."""

    def __init__(self, pod: PodmanPod, folder: Path) -> None:
        self.pod = pod
        for mount in pod.mounts:
            _write(mount, folder / mount.name)
        podman(*pod.arguments(folder))

    @property
    def address(self) -> str:
        """Its address in the pods' network."""
        networks = json.loads(podman("inspect", self.pod.name))[0]["NetworkSettings"]["Networks"]
        return str(networks[self.pod.network]["IPAddress"])

    @property
    def ended(self) -> str:
        """Why it has ended, with its last lines; "" while it runs."""
        state = json.loads(podman("inspect", self.pod.name))[0]["State"]
        if state["Running"]:
            return ""
        return f"exit code {state['ExitCode']}{' (out of memory)' * state['OOMKilled']}: {self.log()}"

    def run(self, *command: str) -> str:
        """Returns what a command prints that runs in the container. Raises PodmanError if it fails."""
        return podman("exec", self.pod.name, *command)

    def log(self) -> str:
        """Returns the last lines of its output."""
        return podman("logs", "--tail", "60", self.pod.name)

    def memory(self) -> int:
        """Returns the memory that it uses now, in bytes, as its limit counts it."""
        used = podman("stats", "--no-stream", "--format", "{{.MemUsageBytes}}", self.pod.name).split("/")[0].strip()
        units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "B": 1}
        unit = next(each for each in units if used.endswith(each))
        return int(float(used.removesuffix(unit)) * units[unit])

    def remove(self) -> None:
        """Ends it at once."""
        podman("rm", "--force", "--time", "0", self.pod.name)


def image_exists(image: str) -> bool:
    """Returns whether podman has the image."""
    return subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0


def _write(mount: Mount, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in mount.files.items():
        (folder / name).write_text(content)
        _give(folder / name, mount.user, 0o440)
    _give(folder, mount.user, 0o2770)


def _give(path: Path, user: int, mode: int) -> None:
    """Does what the kubelet does for ``fsGroup``."""
    os.chown(path, 0, user)
    path.chmod(mode)
