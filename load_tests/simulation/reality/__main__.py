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
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import numpy as np

from cluster.autoscaling.config import AutoscalingConfig, FastLoopConfig, SloConfig, TierScalingConfig
from cluster.local.environment import local_environment, prepare_directory
from load_tests.access.processes import ROOT
from load_tests.simulation.measures import measure, replica_hours
from load_tests.simulation.policies.manta import MantaPolicy
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.reality.probes import CROWD, LENGTHS, Probes
from load_tests.simulation.reality.setup import SETUPS, Setup
from load_tests.simulation.simulation import Outcome, Settings, Simulation
from load_tests.simulation.tier import Tier
from load_tests.simulation.trace import Trace, build, cut, read_trace, scaled

if TYPE_CHECKING:
    from load_tests.local_graph import LocalGraph

DESCRIPTION = """\
Replay a slice of a trace (Azure's CSV) twice: on a Ray cluster of this machine, with the product's router and
autoscaler, and in the simulator with the same policy. Prints the median TTFT and the replica-hours of both.

--engine stub: an engine that takes the time of a profile, which the simulator has, too. With the real engine and the
embedded model "fast", the simulator's profile is fitted to lone requests that the service gets before the load:
embedded as it is, of which two cores can keep two replicas busy, and stretched with the step times of a larger model
(load_tests/prediction/stretched_engine.py), for two to four.

Two things are measured in the real run and given to the simulator, since it has no model of them: the cold start of a
replica on this machine, and what a lone request takes beside the engine's steps (HTTP, router, lane).

With --square the load is a square wave instead, for the real cluster alone: prints for each edge when the target
changed, when the replicas were there, and how many changes there were. With --nodes each replica has a node of its own.
"""
STUB = SETUPS["stub"]
LOW, HIGH = 3.0, 11.0
"""Requests/s of the square wave."""
PROBES = 7  # lone requests of each length
PROBE_OUTPUT = 40  # tokens of answers whose steps are measured
MOST_CHANGES = 2  # of the target, at an edge of a square wave
FAST = FastLoopConfig(
    down_window_s=20,
    down_period_s=10,
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


def slice_of(path: Path, duration_s: float, seed: int, setup: Setup = STUB) -> Trace:
    """Returns the start of the trace at the rate of ``setup``, with prompts and answers that are short enough for a
    small machine. Raises as ``read_trace`` does."""
    whole = cut(read_trace(path), 4 * duration_s)
    whole = scaled(whole, 4 * setup.rate * duration_s / len(whole), seed)
    trace = cut(whole, duration_s)
    prompt = np.clip(trace.prompt // 2, setup.template_tokens + 20, setup.max_prompt)
    return replace(trace, prompt=prompt, output=np.clip(trace.output // 3, 5, setup.max_output))


def policy_config(setup: Setup) -> AutoscalingConfig:
    """Returns the settings of the policy in both runs."""
    slo = SloConfig(ttft_p99_s=setup.slo.ttft_s, itl_p99_s=setup.slo.itl_s)
    tier = TierScalingConfig(min=setup.least, max=setup.most, slos={"standard": slo})
    return AutoscalingConfig(tiers={"fast": tier}, fast=FAST, interval_s=0.5)


class Answer(NamedTuple):
    """The latencies of one answer, in seconds."""

    ttft_s: float
    itl_s: float


class RealRun:
    """The trace, sent to a running graph."""

    def __init__(self, graph: LocalGraph, trace: Trace, setup: Setup) -> None:
        self._graph = graph
        self._trace = trace
        self._setup = setup
        self._series: list[tuple[float, int, int]] = []
        self.targets: list[tuple[float, int]] = []  # (instant of the decision, target), at each change
        self._began_unix_s = 0.0
        self._cut = 0
        self.cold_start_s = 0.0
        self.probes = Probes({}, {})

    async def run(self) -> Found:
        """Returns what was measured. Raises httpx.HTTPError if a request fails."""
        headers = {"authorization": f"Bearer {KEY}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # a reused one may be closed just then
        async with httpx.AsyncClient(base_url=self._graph.url, headers=headers, timeout=120, limits=limits) as client:
            self.probes = await self._probe(client)
            began, self._began_unix_s = time.monotonic(), time.time()
            watching = asyncio.create_task(self._watch(client, began))
            answers = await asyncio.gather(*(self._send(client, n, began) for n in range(len(self._trace))))
            watching.cancel()
        p50, p99 = np.percentile([answer.ttft_s for answer in answers], [50, 99])
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

    async def _probe(self, client: httpx.AsyncClient) -> Probes:
        """Measures lone requests, and as many answers at once as give each replica CROWD of them."""

        async def together(count: int) -> float:
            answers = await asyncio.gather(*(self._ask(client, 40, PROBE_OUTPUT) for _ in range(count)))
            return float(np.median([answer.itl_s for answer in answers]))

        ttft_s = {
            prompt: float(np.median([(await self._ask(client, prompt, 3)).ttft_s for _ in range(PROBES)]))
            for prompt in LENGTHS
        }
        counts = {1: 1, CROWD: CROWD * self._setup.least}
        return Probes(
            ttft_s,
            {each: float(np.median([await together(count) for _ in range(3)])) for each, count in counts.items()},
        )

    async def _send(self, client: httpx.AsyncClient, number: int, began: float) -> Answer:
        await asyncio.sleep(max(0.0, began + float(self._trace.arrival[number]) - time.monotonic()))
        return await self._ask(client, int(self._trace.prompt[number]), int(self._trace.output[number]))

    async def _ask(self, client: httpx.AsyncClient, prompt: int, output: int) -> Answer:
        """Returns the latencies of one answer."""
        words = f"{time.monotonic_ns()} " + "w " * (prompt - self._setup.template_tokens - 1)
        body = {"model": "fast", "stream": True, "max_tokens": output, "temperature": 1, "ignore_eos": True}
        body |= {"messages": [{"role": "user", "content": words}], "stream_options": {"include_usage": True}}
        began, first = time.monotonic(), 0.0
        tokens, done = 0, False
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                done = done or line == "data: [DONE]"
                if not first and _has_text(line):
                    first = time.monotonic() - began
                elif '"completion_tokens"' in line:
                    tokens = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
        self._cut += tokens != output or not done
        return Answer(first, (time.monotonic() - began - first) / (output - 1))

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


def most_changes(targets: Sequence[tuple[float, int]], edges: Sequence[float]) -> int:
    """Returns how often the target of a square wave changed at most from one of its ``edges`` to the next. ``targets``
    are the instants of the changes, with the new targets."""
    return max((sum(edge <= at < end for at, _ in targets) for edge, end in pairwise([*edges, inf])), default=0)


def _has_text(line: str) -> bool:
    """Returns whether a line of a stream has the text of a token."""
    if not line.startswith("data: {"):
        return False
    choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
    return bool(choices[0].get("delta", {}).get("content"))


def simulated(
    trace: Trace, profile: ReplicaProfile, setup: Setup, cold_start_s: float, overhead_s: float, seed: int
) -> Found:
    """Returns the same run in the simulator. ``overhead_s`` is added to each TTFT."""
    outcome = outcome_of(trace, profile, setup, cold_start_s, seed)
    ttft = outcome.first - trace.arrival + overhead_s
    p50, p99 = np.nanpercentile(ttft, [50, 99])
    found = measure(outcome)
    return Found(float(p50), float(p99), found.gpu_hours, found.changes, found.peak_replicas)


def outcome_of(trace: Trace, profile: ReplicaProfile, setup: Setup, cold_start_s: float, seed: int) -> Outcome:
    """Returns what happened in the same run in the simulator."""
    least, most, slo = setup.least, setup.most, setup.slo
    settings = Settings(
        profile, slo, replicas_min=least, replicas_max=most, replicas_start=least, cold_start_s=cold_start_s, seed=seed
    )
    tier = Tier(
        profile, slo, least, most, cold_start_s, float(trace.prompt.mean()), 0.0, float(trace.output.mean()), 1.0, 1.0
    )
    return Simulation(trace, MantaPolicy(tier, policy_config(setup)), settings).run()


def square(duration_s: float, half_s: float, seed: int) -> tuple[Trace, list[float]]:
    """Returns a square wave between LOW and HIGH, low first, and its edges in seconds."""
    random = np.random.default_rng([seed, 9])
    edges = list(np.arange(half_s, duration_s, half_s))
    arrival: list[float] = []
    for number, begin in enumerate([0.0, *edges]):
        rate = HIGH if number % 2 else LOW
        end = min(begin + half_s, duration_s)
        arrival += sorted(random.uniform(begin, end, random.poisson(rate * (end - begin))).tolist())
    prompt = random.integers(100, STUB.max_prompt, len(arrival)).tolist()
    output = random.integers(20, STUB.max_output, len(arrival)).tolist()
    return replace(build("square", arrival, prompt, output), arrival=np.asarray(arrival), duration=duration_s), edges


def application(own_nodes: bool, setup: Setup = STUB) -> dict[str, Any]:
    """Returns the arguments of the application with the scaled tier. ``own_nodes``: each replica needs a SEAT."""
    from load_tests.local_graph import dev_arguments

    arguments = dev_arguments()
    tier = {name: value for name, value in arguments["tiers"][0].items() if name != "replicas"}
    router = arguments["router"]
    # The simulated run has no admission either: what is refused has no latency.
    settings = {"keys": router["keys"], "prices": router["prices"], "admission": {"enabled": False}}
    kept = {"router": settings, "ingress": arguments["ingress"]}
    seat = {"resources": {SEAT: 1}} if own_nodes else {}
    scaling = policy_config(setup).model_dump(mode="json")
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


def real(trace: Trace, nodes: int, setup: Setup) -> tuple[Found, RealRun]:
    """Returns what the real run has measured. With ``nodes`` above 1 each replica has a node of its own."""
    with tempfile.TemporaryDirectory(prefix="manta-", dir="/tmp") as name:  # short: Ray's sockets have long names
        directory = Path(name)
        prepare_directory(directory)
        os.environ.update(local_environment(directory))
        os.environ["PYTHONPATH"] = str(ROOT)
        from load_tests.local_graph import LocalGraph, run_application  # Ray reads the environment at the import
        from load_tests.simulation.reality.engines import FACTORIES

        several = nodes > 1
        start = (lambda: start_nodes(nodes)) if several else None
        graph = LocalGraph(lambda port: run_application(application(several, setup), FACTORIES[setup.engine]), start)
        try:
            run = RealRun(graph, trace, setup)
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
    parser.add_argument("--engine", choices=SETUPS, default="stub", help="stub; the square wave has no other")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help=f"{STUB.most}: each replica has its own; 1")
    parser.add_argument("--rate", type=float, metavar="RPS", help="requests/s of the slice; the engine's own")
    parser.add_argument("--duration", type=float, default=90.0, metavar="S", help="of the slice; 90")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    setup = SETUPS[options.engine]
    if options.square is not None:
        trace, edges = square(options.duration, options.square, options.seed)
        found, run = real(trace, options.nodes, STUB)
        most = most_changes(run.targets, edges)
        changes = f"{found.changes / len(edges):.2f} changes an edge, {most} at most"
        lines = [f"{len(trace)} requests, {found.cut} cut, cold start {run.cold_start_s:.2f} s, {changes}"]
        print("\n".join([*lines, *run.edges(edges)]))
        return 0 if not found.cut and most <= MOST_CHANGES else 1
    if options.rate is not None:
        setup = replace(setup, rate=options.rate)
    trace = slice_of(options.trace, options.duration, options.seed, setup)
    found, run = real(trace, options.nodes, setup)
    profile = setup.profile or run.probes.profile(setup.engine)
    cold_start_s, overhead_s = run.cold_start_s, run.probes.overhead_s(profile)
    expected = simulated(trace, profile, setup, cold_start_s, overhead_s, options.seed)
    rows = {"real": found, "simulated": expected}
    print(
        f"{len(trace)} requests, {found.cut} cut, cold start {cold_start_s:.2f} s, "
        f"{1000 * overhead_s:.0f} ms beside the engine's steps; {setup.engine}: prompts at "
        f"{profile.prefill_tokens_s:.0f} tokens/s, {1000 * profile.step_s:.1f} ms a step"
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
        document |= {"engine": setup.engine, "profile": asdict(profile)}
        document |= {name: {key: getattr(each, key) for key in each.__slots__} for name, each in rows.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if abs(ttft) <= 0.2 and abs(hours) <= 0.15 else 1


if __name__ == "__main__":
    sys.exit(main())
