"""``python -m load_tests.chaos``: disturbs a running graph, and compares every stream."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cluster.local.environment import local_environment, prepare_directory
from load_tests.access.processes import ROOT, redis_server
from load_tests.chaos.client import send_all
from load_tests.chaos.faults import Fault, NoEffectError
from load_tests.chaos.mix import KINDS, Request, mix
from load_tests.chaos.report import clean, report
from load_tests.chaos.transcript import Transcript, difference, longest_pause
from load_tests.chaos.trial import Trial, disturbed, judge

if TYPE_CHECKING:
    from load_tests.chaos.graph import Graph, Setup
    from load_tests.chaos.strike import Undo

DESCRIPTION = """\
Tell whether streams survive a fault unchanged. Starts a graph of its own (Ray, Serve, a router, replicas of the tier
fast with its real engine) and sends a mix of requests at once, twice undisturbed: the answers that are expected. Then
repeats: sends the mix again, brings a fault upon the graph after a random share of the events, and compares texts,
tool calls, log probabilities, finish reasons and usage. Ids and how much of a prompt was cached are not compared. While
a fault lasts (a rolling update takes some ten seconds), the mix is sent again and again.

A pause is the longest gap between two events of a stream from the fault on: of the streams whose usage tells that they
were moved, or of all that were open if none tells so. undisturbed_pause_ms is the longest gap of the same streams
without a fault. With --kill router, all streams of the router are expected to fail: what is counted then is what
clients see. abort_ms is the time from its death until the engines had no work of it left.

What can happen:
  --kill replica      SIGKILL of a process of the tier; another replica continues its streams from the tokens
  --kill engine       an exception ends its thread; the process lives on until Serve has replaced it, some 30 s later
  --kill node         SIGKILL of all processes of a node with one replica (ray.cluster_utils.Cluster, a node for each)
  --kill gcs          SIGKILL of Ray's control store, and a new one 3 s later that reads the same Redis
  --kill controller   SIGKILL of Serve's controller; Ray starts it again, and it finds replicas and proxies
  --kill router       SIGKILL of the HTTP ingress
  --stop replica      SIGSTOP: it hangs until the streams have ended
  --drain             the tier is scaled down by one replica, which hands its streams over when its time is over
  --rolling-update    Serve replaces the replicas of the tier by those of a new version, one after the other;
                      with "router", the two routers, which then share a Redis
  --reload haproxy    a new HAProxy takes over the socket, as when routers come and go
"""
EPILOG = """\
examples:
  python -m load_tests.chaos --kill replica --streams 64 --times 10
  python -m load_tests.chaos --stop replica --streams 16 --times 2 --kinds greedy logprobs --json stop.json
  python -m load_tests.chaos --rolling-update router --streams 32 --times 1

exit codes: 0 all streams came whole and unchanged, 1 some did not or no fault hit an open stream (for the end of a
replica: moved one), 2 the undisturbed runs already failed or differ from one another, the fault had no effect, or no
time was left for any repetition.
"""
DRAIN_S, USUAL_DRAIN_S = 2.0, 5.0
"""Seconds of a replica to finish its streams when it is to stop: where that is the fault, fewer than most last."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="manta-", dir="/tmp") as name:  # short: Ray's sockets have long names
        directory = Path(name)
        prepare_directory(directory)
        os.environ.update(local_environment(directory))
        os.environ["PYTHONPATH"] = str(ROOT)  # Serve imports the application by its path
        with ExitStack() as stack:
            redis_url = stack.enter_context(_redis(options.fault, directory))
            from load_tests.chaos.graph import Graph  # Ray reads the environment when it is imported

            graph = Graph(_setup(options, redis_url, directory))
            stack.callback(graph.stop)
            try:
                measured = _measure(graph, options)
            except (UnsoundError, NoEffectError) as error:
                print(f"load_tests.chaos: {error}", file=sys.stderr)
                return 2
    trials, undisturbed = measured
    figures = report(trials, undisturbed)
    text = json.dumps({"fault": str(options.fault), "times": len(trials), "cores": os.cpu_count(), **figures}, indent=2)
    print(text)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if clean(figures, options.fault) else 1


@contextmanager
def _redis(fault: Fault, directory: Path) -> Iterator[str | None]:
    """Yields the URL of a Redis; None where the fault needs none."""
    if fault not in (Fault.KILL_GCS, Fault.UPDATE_ROUTER):
        yield None
        return
    with redis_server(directory / "redis") as server:
        yield server.url


def _setup(options: argparse.Namespace, redis_url: str | None, directory: Path) -> Setup:
    from load_tests.chaos.graph import Setup

    kills = directory / "kills"
    kills.mkdir()
    planned = options.fault in (Fault.DRAIN_REPLICA, Fault.UPDATE_TIER)
    return Setup(
        options.replicas,
        options.step_ms / 1000,
        drain_s=DRAIN_S if planned else USUAL_DRAIN_S,
        kills=kills,
        own_nodes=options.fault is Fault.KILL_NODE,
        gcs_redis=redis_url if options.fault is Fault.KILL_GCS else None,
        state_redis=redis_url if options.fault is Fault.UPDATE_ROUTER else None,
    )


class UnsoundError(Exception):
    """There is nothing to compare with; the message says why."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.chaos",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    faults = parser.add_mutually_exclusive_group(required=True)
    fault: dict[str, Any] = {"dest": "fault"}
    parts = "replica", "engine", "node", "gcs", "controller", "router"
    faults.add_argument("--kill", type=_fault("kill"), metavar=f"{{{','.join(parts)}}}", help="SIGKILL", **fault)
    faults.add_argument("--stop", type=_fault("stop"), metavar="{replica}", help="SIGSTOP", **fault)
    faults.add_argument("--drain", action="store_const", const=Fault.DRAIN_REPLICA, help="scale the tier down", **fault)
    faults.add_argument(
        "--rolling-update",
        type=_fault("rolling-update"),
        nargs="?",
        const="tier",
        metavar="{tier,router}",
        help="replace all replicas (default: of the tier)",
        **fault,
    )
    faults.add_argument("--reload", type=_fault("reload"), metavar="{haproxy}", help="a new process", **fault)
    add("--streams", type=int, default=64, help="requests at once (default: %(default)s)")
    add("--times", type=int, default=10, help="repetitions (default: %(default)s)")
    add("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="of requests (default: all)")
    add("--replicas", type=int, default=2, help="of the tier (default: %(default)s)")
    add("--max-tokens", type=int, default=160, help="of an answer (default: %(default)s)")
    add("--step-ms", type=float, default=15.0, help="the shortest step of an engine (default: %(default)s)")
    add("--timeout", type=float, default=90.0, metavar="S", help="of each request (default: %(default)s)")
    add("--budget", type=float, default=1800.0, metavar="S", help="no repetition begins later (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the moments of the faults (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    return parser


def _fault(verb: str) -> Callable[[str], Fault]:
    def parse(name: str) -> Fault:
        try:
            return Fault(f"{verb} {name}")
        except ValueError:
            raise argparse.ArgumentTypeError(f"cannot {verb} {name!r}") from None

    return parse


def _measure(graph: Graph, options: argparse.Namespace) -> tuple[list[Trial], list[float]]:
    """Returns the repetitions, and the longest gap of each undisturbed stream in seconds. Raises UnsoundError, and what
    ``strike`` raises."""
    from load_tests.chaos.graph import KEY
    from load_tests.chaos.strike import strike

    began, draw = time.monotonic(), random.Random(options.seed)
    requests = mix(options.streams, options.max_tokens, {kind: KINDS[kind] for kind in options.kinds})
    graph.wait_until_ready()  # else the first replica gets all, and keeps them, since it has their prompts in its cache
    expected, events = _undisturbed(graph.url, KEY, requests, options.timeout)
    trials: list[Trial] = []
    with tqdm(total=options.times, unit="time", desc=str(options.fault), file=sys.stderr) as bar:
        for turn in range(options.times):
            replicas = graph.wait_until_ready()
            if time.monotonic() - began > options.budget:
                break
            undo: list[Undo] = []

            def inject(replicas: Sequence[int] = replicas, turn: int = turn, undo: list[Undo] = undo) -> None:
                undo.append(strike(options.fault, graph, replicas, turn))

            after = max(1, round(draw.uniform(0.1, 0.8) * events))
            try:
                got, at = asyncio.run(disturbed(graph.url, KEY, requests, after, inject, options.timeout))
            finally:
                aborted_s = [each() for each in undo]
            trials.append(judge(requests, expected, got, at))
            trials[-1].aborted_s = next(iter(aborted_s), None)
            bar.set_postfix_str(_so_far(trials), refresh=False)
            bar.update()
    if not trials:
        raise UnsoundError(f"no repetition began within {options.budget:g} s")
    gaps = (longest_pause(each.times, 0.0) for each in expected)
    return trials, [gap for gap in gaps if gap is not None]


def _undisturbed(url: str, key: str, requests: Sequence[Request], timeout_s: float) -> tuple[list[Transcript], int]:
    """Returns the expected transcripts, and the number of events of all. Raises UnsoundError."""
    runs: list[list[Transcript]] = []
    counts: list[int] = []
    for _ in range(2):
        events: list[None] = []
        runs.append(asyncio.run(send_all(url, key, requests, timeout_s, partial(events.append, None))))
        counts.append(len(events))
    for request, one, other in zip(requests, *runs, strict=True):
        fault = one.problem or other.problem or difference(one, other)
        if fault is not None:
            raise UnsoundError(f"undisturbed, a request of kind {request.kind}: {fault}")
    return runs[1], counts[1]


def _so_far(trials: Sequence[Trial]) -> str:
    failed, differ = sum(len(trial.problems) for trial in trials), sum(len(trial.differences) for trial in trials)
    return f"{failed} failed, {differ} different"


if __name__ == "__main__":
    sys.exit(main())
