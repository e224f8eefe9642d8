"""``python -m load_tests.clients``: slow and bad clients beside usual ones, through HAProxy."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from cluster.local.environment import local_environment, prepare_directory
from load_tests.access.processes import ROOT
from load_tests.clients.attacks import Attack, Target
from load_tests.clients.measure import (
    OPENING_S,
    BadClients,
    Fared,
    haproxy_pids,
    kernel_memory_mb,
    memory_mb,
    report,
    usual_clients,
)

if TYPE_CHECKING:
    from load_tests.chaos.graph import Graph

DESCRIPTION = """\
Tell what clients cost that are slow or never finish what they begin. Starts a graph of its own (Ray, Serve with
HAProxy, a router, one replica of the tier fast) and measures usual clients three times: before, while bad ones keep
their connections open, and afterwards.

  slow-reader    asks for a stream with 20 log probabilities a token, and reads a byte now and then
  trickle        sends the body of its request a byte now and then
  half-open      connects and sends nothing
  header-flood   sends a header now and then, and never the last

p99_ms are of usual clients: from a request to its whole answer. p99_ratio is that during the attack by that before it:
what comes afterwards still has the attack's work to clear away. closed_by_server counts bad clients that were let go,
which takes up to 10 s for headers, 30 s for a body (body_timeout_s) and 60 s for a client that does not read, so the
measurement is to last longer than they may stay. Memory is what a process has for itself (USS); kernel_mb is what Linux
holds for the data of all TCP connections. Bad clients run in this process, beside the usual ones.
"""
EPILOG = """\
examples:
  python -m load_tests.clients --attack trickle --connections 500
  python -m load_tests.clients --attack slow-reader --connections 100 --duration 5 --json slow.json

exit codes: 0 no usual client failed and the ratio is at most --max-ratio, 1 otherwise.
"""
QUIET_S = 300.0  # within which the engine has to finish the requests of slow readers


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="manta-", dir="/tmp") as name:  # short: Ray's sockets have long names
        directory = Path(name)
        prepare_directory(directory)
        os.environ.update(local_environment(directory))
        os.environ["PYTHONPATH"] = str(ROOT)  # Serve imports the application by its path
        from load_tests.chaos.graph import Graph, Setup  # Ray reads the environment when it is imported

        graph = Graph(Setup(replicas=1, step_s=0.0, drain_s=5.0))
        try:
            figures = asyncio.run(_measure(graph, options))
        finally:
            graph.stop()
    text = json.dumps({"attack": str(options.attack), "cores": os.cpu_count(), **figures}, indent=2)
    print(text)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if not any(figures["failed"]) and figures["p99_ratio"] <= options.max_ratio else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.clients",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--attack", type=Attack, choices=list(Attack), required=True, help="what bad clients do")
    add("--connections", type=int, default=500, help="of bad clients (default: %(default)s)")
    add("--clients", type=int, default=8, help="usual ones at once (default: %(default)s)")
    add("--duration", type=float, default=75.0, metavar="S", help="of each measurement (default: %(default)s)")
    add("--interval", type=float, default=1.0, metavar="S", help="between bytes of a bad client (default: %(default)s)")
    add("--max-tokens", type=int, default=32, help="of usual answers (default: %(default)s)")
    add("--slow-tokens", type=int, default=1000, help="of answers to slow readers (default: %(default)s)")
    add("--max-ratio", type=float, default=1.5, help="of the P99 (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    return parser


async def _measure(graph: Graph, options: argparse.Namespace) -> dict[str, Any]:
    from load_tests.chaos.graph import KEY

    address = urlsplit(graph.url)
    target = Target(str(address.hostname), int(address.port or 80), KEY, options.interval, options.slow_tokens)
    phases: list[Fared] = []
    memory: dict[str, list[float]] = {"router_mb": [], "haproxy_mb": [], "kernel_mb": []}

    async def phase(bar: tqdm[Any]) -> None:
        phases.append(await usual_clients(graph.url, KEY, options.clients, options.duration, options.max_tokens))
        memory["router_mb"].append(memory_mb(graph.router_pids()))
        memory["haproxy_mb"].append(memory_mb(haproxy_pids()))
        memory["kernel_mb"].append(kernel_memory_mb())
        bar.update()

    await usual_clients(graph.url, KEY, options.clients, options.duration / 2, options.max_tokens)  # warms up
    with tqdm(total=3, unit="phase", desc=str(options.attack), file=sys.stderr) as bar:
        await phase(bar)
        bad = BadClients(options.attack, target, options.connections)
        await _until_quiet(graph)
        await phase(bar)
        outcomes = await bad.close()
        await phase(bar)
    return {**report(phases, outcomes, options.connections), **memory}


async def _until_quiet(graph: Graph) -> None:
    """Returns when all bad clients are there and the engine runs none of their requests, which they pay for as others
    do. Raises TimeoutError."""
    await asyncio.sleep(OPENING_S)
    deadline = time.monotonic() + QUIET_S
    while (await asyncio.to_thread(graph.describe))[0].stats.running:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the engine still runs requests of bad clients after {QUIET_S:g} s")
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
