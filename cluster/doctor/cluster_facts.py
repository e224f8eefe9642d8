"""``cluster_facts``: has a process look at all nodes of a Ray cluster, and ends it when it takes too long."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.config import StateConfig
from cluster.doctor.facts import NodeFacts

PROBE_S = 90.0
ROOT = Path(__file__).resolve().parents[2]


def cluster_facts(
    address: str,
    models: Sequence[str],
    directories: Sequence[str],
    state: StateConfig | None = None,
    port: int | None = None,
    timeout_s: float = PROBE_S,
) -> tuple[list[NodeFacts], str]:
    """Returns the facts about each node of the Ray cluster at ``address``, and why some nodes or all are missing; "":
    none is. ``models`` and ``directories`` are as in ``node_facts``, ``state`` and ``port`` as in ``node_reach``. It
    takes at most ``timeout_s`` seconds."""
    asked = {
        "address": address,
        "models": list(models),
        "directories": list(directories),
        "state": None if state is None else _revealed(state),
        "port": port,
    }
    command = [sys.executable, "-m", "cluster.doctor.cluster_probe"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        return [], f"the cluster at {address} does not answer within {timeout_s:g} s"
    if done.returncode != 0:
        return [], f"the cluster at {address} cannot be joined: {_reason(done.stderr)}"
    try:
        rows: list[dict[str, Any]] = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    except ValueError:
        return [], f"the cluster at {address} was not looked at: the process that looks has said nothing"
    lost = [f"{row['node']} ({row['fault']})" for row in rows if "fault" in row]
    nodes = [NodeFacts(**row) for row in rows if "fault" not in row]
    return nodes, f"these nodes do not answer: {', '.join(lost)}" if lost else ""


def _revealed(state: StateConfig) -> dict[str, Any]:
    """Returns ``state`` as JSON with its URL, for the process' stdin. With ``url_file`` nodes read the URL themselves,
    and no secret leaves this machine."""
    url = None if state.url is None else state.url.get_secret_value()
    return {**state.model_dump(mode="json"), "url": url}


def _reason(output: str) -> str:
    """Returns the type of the error with which the process has ended. Its message may have a token."""
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return last.partition(":")[0].rpartition(".")[2][:80] or "it has ended"
