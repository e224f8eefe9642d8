"""``GroupMeter``: the CPU seconds of a server, by what its processes do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from load_tests.cpu import PROC, cpu_seconds, process_tree

GROUPS = ("router", "classifier", "engine", "ingress", "other")

REPLICA = "ray::ServeReplica:"
DEPLOYMENTS = {"Router": "router", "SafetyClassifier": "classifier", "SmallModels": "classifier"}
"""The groups of deployments by name. The others are tiers, which run engines."""

INGRESS = ("ray::ProxyActor", "ray::HAProxyManager", "haproxy")


def group_of(command: str) -> str:
    """Returns the group of a process with this command line, whose arguments are separated by NUL. Ray writes the class
    of an actor, and Serve the application and the deployment of a replica, in the place of the program."""
    program = command.split("\0", 1)[0].split(" ", 1)[0]
    if program.startswith(REPLICA):
        deployment = program.rsplit(":", 1)[1].split(".", 1)[0]
        return DEPLOYMENTS.get(deployment, "engine")
    if program.startswith(INGRESS) or Path(program).name in INGRESS:
        return "ingress"
    return "other"


def by_group(
    seconds: Mapping[int, float], before: Mapping[int, float], commands: Mapping[int, str]
) -> dict[str, float]:
    """Returns the CPU seconds of each group: those of its processes without what they had used ``before``. A process
    without a command line has ended, and counts as one of the rest."""
    found = dict.fromkeys(GROUPS, 0.0)
    for pid, spent in seconds.items():
        found[group_of(commands.get(pid, ""))] += spent - before.get(pid, 0.0)
    return found


class GroupMeter:
    """The CPU seconds that the trees below some processes used since the meter was made, by group. A process that ended
    in between is lost to the count."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = tuple(roots)
        self._before = cpu_seconds(process_tree(self._roots))

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each of ``GROUPS``."""
        now = cpu_seconds(process_tree(self._roots))
        return by_group(now, self._before, {pid: _command(pid) for pid in now})


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended
