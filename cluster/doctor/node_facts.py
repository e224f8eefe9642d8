"""``node_facts``: looks at the machine that it runs on. It runs here, and as a Ray task on other nodes."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import distributions
from pathlib import Path

from cluster.doctor.facts import NodeFacts
from cluster.doctor.port_facts import GCS, answers_without_token, network_listeners, redis_without_password
from cluster.local.environment import LOOPBACK, cluster_variables, runs_in_pod
from engine.model.location import ModelNotFoundError, locate

NVIDIA_S = 10.0  # a driver that hangs must not make the doctor hang
SHM = "/dev/shm"


def node_facts(node: str, models: Sequence[str], directories: Sequence[str]) -> NodeFacts:
    """Returns the facts of ``node``, this machine. ``models`` are looked for, and the free room on the disks of
    ``directories`` and of the one for temporary files. Ports are those that are usual."""
    packages = {
        _normal(each.metadata["Name"]): each.version.partition("+")[0]
        for each in distributions()
        if each.metadata["Name"]
    }
    return NodeFacts(
        node,
        platform.python_version(),
        packages.get("ray", ""),
        packages,
        cluster_variables(),
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        _total(SHM),
        _free([tempfile.gettempdir(), *directories]),
        {model: unreadable(model) for model in models},
        gpus(),
        listeners=network_listeners(),
        jobs_open=answers_without_token(),
        redis_open=redis_without_password(LOOPBACK, GCS),
        in_pod=runs_in_pod(),
    )


def unreadable(model: str) -> str:
    """Returns why a model cannot be read; "": it can. The files of a directory are opened, since a listing tells
    nothing of their permissions."""
    try:
        path = locate(model)
        files = [each for each in sorted(path.iterdir()) if each.is_file()] if path.is_dir() else [path]
        if not files:
            return "the directory has no files"
        for each in files:
            with each.open("rb") as file:
                file.read(1)
    except ModelNotFoundError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def gpus() -> list[tuple[str, str]]:
    """Returns the GPUs that NVIDIA's driver knows: name and the driver's version. Without a driver there are none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(",", 1) for line in found.splitlines() if "," in line]
    return [(name.strip(), driver.strip()) for name, driver in rows]


def constraints(path: Path) -> dict[str, str] | None:
    """Returns the version of each distribution in a constraints file of pip, by its normalised name; None: there is no
    such file."""
    if not path.is_file():
        return None
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pins = (line.partition("==") for line in lines)
    return {_normal(name): version.strip() for name, equal, version in pins if equal}


def _normal(name: str) -> str:
    """Returns the name of a distribution as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _total(directory: str) -> int | None:
    try:
        return shutil.disk_usage(directory).total
    except OSError:
        return None


def _free(directories: Iterable[str]) -> dict[str, int]:
    """Returns the free room for each directory, or for what is there of its path."""
    found: dict[str, int] = {}
    for each in dict.fromkeys(directories):
        path = Path(each).absolute()
        there = next((parent for parent in (path, *path.parents) if _can_be_seen(parent)), None)
        if there is not None:
            found[each] = os.statvfs(there).f_bavail * os.statvfs(there).f_frsize
    return found


def _can_be_seen(path: Path) -> bool:
    """Returns whether there is such a path, as far as this user may know."""
    try:
        return path.exists()
    except OSError:
        return False
