"""``python -m load_tests.simulation.reality``: a slice of a trace on a Ray cluster, and simulated."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from cluster.autoscaling.config import AutoscalingConfig, FastLoopConfig, SloConfig, TierScalingConfig
from cluster.local.environment import local_environment, prepare_directory
from load_tests.access.processes import ROOT
from load_tests.simulation.measures import measure, replica_hours
from load_tests.simulation.policies.manta import MantaPolicy
from load_tests.simulation.reality.local_profile import LOCAL
from load_tests.simulation.simulation import Settings, Simulation
from load_tests.simulation.slo import Slo
from load_tests.simulation.tier import Tier
from load_tests.simulation.trace import Trace, build, cut, read_trace, scaled

if TYPE_CHECKING:
    from load_tests.local_graph import LocalGraph

DESCRIPTION = """\
Replay a slice of a trace (Azure's CSV) twice: on a Ray cluster of this machine, with the product's router and
autoscaler and replicas of a stub engine that takes the time of a profile, and in the simulator with the same profile
and the same policy. Prints the median TTFT and the replica-hours of both.

Two things are measured in the real run and given to the simulator, since it has no model of them: the cold start of a
replica on this machine, and what a lone request takes beside the engine's steps (HTTP, router, lane).

With --square the load is a square wave instead, for the real cluster alone: prints for each edge when the target
changed, when the replicas were there, and how many changes there were. With --nodes each replica has a node of its own.
"""
LOW, HIGH = 3.0, 11.0
"""Requests/s of the square wave."""
RATE = 9.0  # requests/s, on average
LEAST, MOST = 2, 4
MAX_PROMPT, MAX_OUTPUT = 900, 80
PROBES = 15
SLO = Slo(ttft_s=1.0, itl_s=0.15, ttft_s_per_token=0.0)
FAST = FastLoopConfig(
    down_window_s=20,
    down_period_s=10,
    up_window_s=1,
    up_period_s=5,
    flow_window_s=20,
    drain_s=10,
    default_cold_start_s=4,
)
SEAT = "manta_seat"
"""A resource of which each worker node has one."""
KEY, ADMIN_KEY = "sk-manta-dev", "sk-manta-admin"


@dataclass(frozen=True, slots=True)
class Found:
    """One of the two runs: median and 99th percentile of TTFTs, and hours of replicas that serve or drain."""

    ttft_p50_s: float
    ttft_p99_s: float
    replica_hours: float
    changes: int
    peak: int
    cut: int = 0  # answers that ended early


def slice_of(path: Path, duration_s: float, seed: int) -> Trace:
    """Returns the start of the trace at RATE, with prompts and answers that are short enough for a small machine.
    Raises as ``read_trace`` does."""
    whole = cut(read_trace(path), 4 * duration_s)
    whole = scaled(whole, 4 * RATE * duration_s / len(whole), seed)
    trace = cut(whole, duration_s)
    prompt = np.clip(trace.prompt // 2, 20, MAX_PROMPT)
    return replace(trace, prompt=prompt, output=np.clip(trace.output // 3, 5, MAX_OUTPUT))


def policy_config() -> AutoscalingConfig:
    """Returns the settings of the policy in both runs."""
    tier = TierScalingConfig(
        min=LEAST, max=MOST, slos={"standard": SloConfig(ttft_p99_s=SLO.ttft_s, itl_p99_s=SLO.itl_s)}
    )
    return AutoscalingConfig(tiers={"fast": tier}, fast=FAST, interval_s=0.5)


class RealRun:
    """The trace, sent to a running graph."""

    def __init__(self, graph: LocalGraph, trace: Trace) -> None:
        self._graph = graph
        self._trace = trace
        self._series: list[tuple[float, int, int]] = []
        self.targets: list[tuple[float, int]] = []  # (instant of the decision, target), at each change
        self._began_unix_s = 0.0
        self._cut = 0
        self.cold_start_s = 0.0
        self.lone_s = 0.0  # median TTFT of a lone request without a prompt to speak of

    async def run(self) -> Found:
        """Returns what was measured. Raises httpx.HTTPError if a request fails."""
        headers = {"authorization": f"Bearer {KEY}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # a reused one may be closed just then
        async with httpx.AsyncClient(base_url=self._graph.url, headers=headers, timeout=120, limits=limits) as client:
            self.lone_s = float(np.median([await self._ask(client, 20, 3) for _ in range(PROBES)]))
            began, self._began_unix_s = time.monotonic(), time.time()
            watching = asyncio.create_task(self._watch(client, began))
            ttfts = await asyncio.gather(*(self._send(client, n, began) for n in range(len(self._trace))))
            watching.cancel()
        p50, p99 = np.percentile(ttfts, [50, 99])
        hours = replica_hours(self._series, self._trace.duration)
        counts = [serving for at, _, serving in self._series if at <= self._trace.duration]
        return Found(float(p50), float(p99), hours, max(0, len(self.targets) - 1), max(counts), self._cut)

    def edges(self, edges: Sequence[float]) -> list[str]:
        """Returns a line for each edge of a square wave: when the target changed, and when the replicas were there."""
        lines = []
        for edge, end in pairwise([*edges, self._trace.duration]):
            changes = [(at - edge, target) for at, target in self.targets if edge <= at < end]
            there = [
                f"{at - edge:.1f} s: {serving} serve"
                for (_, _, before), (at, _, serving) in pairwise(self._series)
                if serving != before and edge <= at < end
            ]
            decided = ", ".join(f"{at:.1f} s: target {target}" for at, target in changes) or "no change"
            lines.append(f"edge at {edge:.0f} s: {decided}; {', '.join(there) or 'as many serve'}")
        return lines

    async def _send(self, client: httpx.AsyncClient, number: int, began: float) -> float:
        await asyncio.sleep(max(0.0, began + float(self._trace.arrival[number]) - time.monotonic()))
        return await self._ask(client, int(self._trace.prompt[number]), int(self._trace.output[number]))

    async def _ask(self, client: httpx.AsyncClient, prompt: int, output: int) -> float:
        """Returns the TTFT of one answer, in seconds."""
        words = f"{time.monotonic_ns()} " + "w " * (prompt - 1)
        body = {"model": "fast", "stream": True, "max_tokens": output, "temperature": 1}
        began, first = time.monotonic(), 0.0
        body["messages"] = [{"role": "user", "content": words}]
        tokens, done = 0, False
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                tokens += line.count(" tok")
                done = done or line == "data: [DONE]"
                if not first and tokens:
                    first = time.monotonic() - began
        self._cut += tokens != output or not done
        return first

    async def _watch(self, client: httpx.AsyncClient, began: float) -> None:
        """Notes the replicas that hold resources and those that serve, twice a second."""
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        while True:
            rows = (await client.get("/admin/v1/scaling", headers=headers)).raise_for_status().json()["data"]
            row = next((row for row in rows if row["tier"] == "fast"), None)
            numbers = {} if row is None else row["numbers"]
            if row is not None and (not self.targets or self.targets[-1][1] != row["target"]):
                self.targets.append((row["at"] - self._began_unix_s, row["target"]))
            if numbers:
                ready, starting = int(numbers["ready"]), int(numbers["starting"])
                self._series.append((time.monotonic() - began if self._series else 0.0, ready + starting, ready))
                self.cold_start_s = float(numbers["cold_start_s"])
            await asyncio.sleep(0.5)


def simulated(trace: Trace, cold_start_s: float, overhead_s: float, seed: int) -> Found:
    """Returns the same run in the simulator. ``overhead_s`` is added to each TTFT."""
    settings = Settings(
        LOCAL, SLO, replicas_min=LEAST, replicas_max=MOST, replicas_start=LEAST, cold_start_s=cold_start_s, seed=seed
    )
    tier = Tier(
        LOCAL, SLO, LEAST, MOST, cold_start_s, float(trace.prompt.mean()), 0.0, float(trace.output.mean()), 1.0, 1.0
    )
    outcome = Simulation(trace, MantaPolicy(tier, policy_config()), settings).run()
    ttft = outcome.first - trace.arrival + overhead_s
    p50, p99 = np.nanpercentile(ttft, [50, 99])
    found = measure(outcome)
    return Found(float(p50), float(p99), found.gpu_hours, found.changes, found.peak_replicas)


def square(duration_s: float, half_s: float, seed: int) -> tuple[Trace, list[float]]:
    """Returns a square wave between LOW and HIGH, low first, and its edges in seconds."""
    random = np.random.default_rng([seed, 9])
    edges = list(np.arange(half_s, duration_s, half_s))
    arrival: list[float] = []
    for number, begin in enumerate([0.0, *edges]):
        rate = HIGH if number % 2 else LOW
        end = min(begin + half_s, duration_s)
        arrival += sorted(random.uniform(begin, end, random.poisson(rate * (end - begin))).tolist())
    prompt = random.integers(100, MAX_PROMPT, len(arrival)).tolist()
    output = random.integers(20, MAX_OUTPUT, len(arrival)).tolist()
    return replace(build("square", arrival, prompt, output), arrival=np.asarray(arrival), duration=duration_s), edges


def application(own_nodes: bool) -> dict[str, Any]:
    """Returns the arguments of the application with the scaled tier. ``own_nodes``: each replica needs a SEAT."""
    from load_tests.local_graph import dev_arguments

    arguments = dev_arguments()
    tier = {name: value for name, value in arguments["tiers"][0].items() if name != "replicas"}
    router = arguments["router"]
    kept = {"router": {"keys": router["keys"], "prices": router["prices"]}, "ingress": arguments["ingress"]}
    seat = {"resources": {SEAT: 1}} if own_nodes else {}
    scaling = policy_config().model_dump(mode="json")
    return {**kept, "tiers": [{**tier, "num_cpus": 0, "drain_timeout_s": 20, **seat}], "autoscaling": scaling}


def start_nodes(count: int) -> None:
    """Starts a Ray cluster with ``count`` worker nodes, each with a SEAT for one replica."""
    import ray
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {
        "include_dashboard": False,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": 80 * 2**20,
    }
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 4})
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    for _ in range(count):
        cluster.add_node(num_cpus=0, resources={SEAT: 1}, **node)


def real(trace: Trace, nodes: int) -> tuple[Found, RealRun]:
    """Returns what the real run has measured. With ``nodes`` above 1 each replica has a node of its own."""
    with tempfile.TemporaryDirectory(prefix="manta-", dir="/tmp") as name:  # short: Ray's sockets have long names
        directory = Path(name)
        prepare_directory(directory)
        os.environ.update(local_environment(directory))
        os.environ["PYTHONPATH"] = str(ROOT)
        from load_tests.local_graph import LocalGraph, run_application  # Ray reads the environment at the import
        from load_tests.simulation.reality.batching_stub import BatchingFactory

        several = nodes > 1
        start = (lambda: start_nodes(nodes)) if several else None
        graph = LocalGraph(lambda port: run_application(application(several), BatchingFactory()), start)
        try:
            run = RealRun(graph, trace)
            return asyncio.run(run.run()), run
        finally:
            graph.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both. Returns the exit code: 0 if both differences are within the bounds, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.simulation.reality",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, metavar="FILE", help="Azure's CSV")
    source.add_argument("--square", type=float, metavar="S", help="a square wave, with S seconds from edge to edge")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help=f"{MOST}: each replica has its own; 1")
    parser.add_argument("--duration", type=float, default=90.0, metavar="S", help="of the slice; 90")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.square is not None:
        trace, edges = square(options.duration, options.square, options.seed)
        found, run = real(trace, options.nodes)
        changes = f"{found.changes / len(edges):.2f} changes an edge"
        lines = [f"{len(trace)} requests, {found.cut} cut, cold start {run.cold_start_s:.2f} s, {changes}"]
        print("\n".join([*lines, *run.edges(edges)]))
        return 0 if not found.cut and found.changes <= 2 * len(edges) else 1
    trace = slice_of(options.trace, options.duration, options.seed)
    found, run = real(trace, options.nodes)
    cold_start_s = run.cold_start_s
    overhead_s = max(0.0, run.lone_s - LOCAL.step_s - 20 / LOCAL.prefill_tokens_s)
    expected = simulated(trace, cold_start_s, overhead_s, options.seed)
    rows = {"real": found, "simulated": expected}
    print(
        f"{len(trace)} requests, cold start {cold_start_s:.2f} s, {1000 * overhead_s:.0f} ms beside the engine's steps"
    )
    for name, each in rows.items():
        print(
            f"{name:<10} TTFT p50 {1000 * each.ttft_p50_s:6.0f} ms, p99 {1000 * each.ttft_p99_s:6.0f} ms, "
            f"{3600 * each.replica_hours:6.1f} replica-seconds, peak {each.peak}, {each.changes} changes"
        )
    ttft = expected.ttft_p50_s / found.ttft_p50_s - 1
    hours = expected.replica_hours / found.replica_hours - 1
    print(f"differences: median TTFT {ttft:+.1%} (20 % allowed), replica-hours {hours:+.1%} (15 % allowed)")
    if options.json is not None:
        document = {"trace": trace.name, "requests": len(trace), "cold_start_s": cold_start_s, "overhead_s": overhead_s}
        document |= {name: {key: getattr(each, key) for key in each.__slots__} for name, each in rows.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if abs(ttft) <= 0.2 and abs(hours) <= 0.15 else 1


if __name__ == "__main__":
    sys.exit(main())
