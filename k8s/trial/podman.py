"""``Container``: a pod that podman runs, its address, and what the kernel says of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from k8s.trial.pod import Mount, PodmanPod

CGROUP = "/sys/fs/cgroup"


class PodmanError(RuntimeError):
    """A command of podman has failed. The message has its last words."""


def podman(*arguments: str, timeout_s: float = 120.0) -> str:
    """Returns what ``podman`` prints. Raises PodmanError if it fails or takes longer than ``timeout_s`` seconds."""
    try:
        done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise PodmanError(f"podman {arguments[0]}: no end after {timeout_s:g} s") from error
    if done.returncode:
        raise PodmanError(f"podman {arguments[0]}: {(done.stderr or done.stdout).strip()[-1000:]}")
    # A container's own two outputs come as podman's two.
    return f"{done.stdout}{done.stderr if arguments[0] == 'logs' else ''}".strip()


class Container:
    """A pod on this machine. ``folder`` is an empty folder for its volumes."""

    def __init__(self, pod: PodmanPod, folder: Path) -> None:
        self.pod = pod
        self._folder = folder
        for mount in pod.mounts:
            write(mount, folder / mount.name)

    def start(self) -> None:
        """Starts it. Raises PodmanError if it cannot be started."""
        podman("run", "--detach", *self.pod.arguments(self._folder))

    def run_to_end(self, limit_s: float) -> None:
        """Runs it until it has ended. Raises PodmanError if it fails or takes longer than ``limit_s`` seconds."""
        podman("run", *self.pod.arguments(self._folder), timeout_s=limit_s)

    @property
    def address(self) -> str:
        """Its address in the pods' network."""
        return str(self._inspected()["NetworkSettings"]["Networks"][self.pod.network]["IPAddress"])

    @property
    def ended(self) -> str:
        """Why it has ended, with its last lines; "" while it runs."""
        state = self._inspected()["State"]
        if state["Running"]:
            return ""
        return f"exit code {state['ExitCode']}{' (out of memory)' * state['OOMKilled']}: {self.log()}"

    def execute(self, *command: str, timeout_s: float = 30.0) -> str:
        """Returns what a command prints that runs in the container. Raises PodmanError if it fails."""
        return podman("exec", self.pod.name, *command, timeout_s=timeout_s)

    def log(self) -> str:
        """Returns the last lines of its output."""
        return podman("logs", "--tail", "60", self.pod.name)

    def limit(self, name: str, controller: str, name_v1: str) -> int:
        """Returns a number of its control group: the file ``name`` of version 2, or ``name_v1`` of a ``controller`` of
        version 1."""
        pid = self._inspected()["State"]["Pid"]
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" and Path(f"{CGROUP}{path}/{name}").exists():
                return int(Path(f"{CGROUP}{path}/{name}").read_text(encoding="ascii").split()[0])
            if controller in controllers.split(","):
                return int(Path(f"{CGROUP}/{controller}{path}/{name_v1}").read_text(encoding="ascii"))
        raise PodmanError(f"{self.pod.name} has no control group for {controller}")

    def _inspected(self) -> Any:
        return json.loads(podman("inspect", self.pod.name))[0]


def remove(name: str) -> None:
    """Ends a container at once and removes it, if there is one."""
    podman("rm", "--force", "--ignore", "--volumes", "--time", "0", name)


def image_exists(image: str) -> bool:
    """Returns whether podman has the image."""
    return subprocess.run(["podman", "image", "exists", image], check=False, timeout=60).returncode == 0


def write(mount: Mount, folder: Path) -> None:
    """Makes the folder of a volume with its files, for its group, as the kubelet does for ``fsGroup``."""
    folder.mkdir(parents=True)
    for name, content in mount.files.items():
        (folder / name).write_text(content, encoding="utf-8")
        _give(folder / name, mount.group, 0o440)
    _give(folder, mount.group, 0o2770)


def _give(path: Path, group: int, mode: int) -> None:
    os.chown(path, 0, group)
    path.chmod(mode)
