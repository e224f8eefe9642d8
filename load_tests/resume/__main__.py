"""``python -m load_tests.resume``: cuts streams at random, and reads them on from the other router."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from tqdm import tqdm

from cluster.local.environment import local_environment, prepare_directory
from load_tests.access.processes import ROOT, redis_server
from load_tests.chaos.client import send_all
from load_tests.chaos.mix import KINDS, mix
from load_tests.resume.client import run_cut, status_of
from load_tests.resume.cuts import cut_streams
from load_tests.resume.report import Wave, clean, report
from load_tests.resume.router_switch import RouterSwitch

if TYPE_CHECKING:
    from load_tests.chaos.graph import Graph

DESCRIPTION = """\
Tell whether a stream whose client loses its connection is the same after it was resumed on another router. Starts a
graph of its own (Ray, Serve with HAProxy, two routers that share a Redis, replicas of the tier fast with its real
engine). Sends requests with "detach": true through HAProxy to one router, cuts each connection after a random number
of events, and reads the rest through HAProxy from the other router. Compares the joined texts, tool calls, log
probabilities, finish reasons and usage with those of undisturbed streams. The routers take turns. Another key asks
for each stream, which must be a 404, and its owner asks again after the window, which must be a 410.

led_to_other_router is what HAProxy has counted while streams were resumed. wait_ms is the time from the second request
to its first bytes.
"""
EPILOG = """\
examples:
  python -m load_tests.resume --streams 200
  python -m load_tests.resume --streams 14 --at-once 14 --json resume.json

exit codes: 0 all streams were resumed on the other router and are unchanged, 1 otherwise, 2 the undisturbed streams
failed.
"""
OTHER_KEY = "sk-manta-other"
RESUMED = ("greedy", "seeded", "choices", "schema", "tools", "stops", "logprobs")
"""The kinds that stream from their first token on."""
WINDOW_S = 15.0
MARGIN_S = 2.0  # after the window


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with _directory() as directory, redis_server(directory / "redis") as server:
        from load_tests.chaos.graph import Graph, Setup  # Ray reads the environment when it is imported

        router = {"resume": {"window_s": WINDOW_S}}
        setup = Setup(options.replicas, options.step_ms / 1000, drain_s=5.0, state_redis=server.url, router=router)
        graph = Graph(setup)
        try:
            graph.wait_until_ready()
            waves = asyncio.run(_measure(graph, RouterSwitch(directory), options))
        except UnsoundError as error:
            print(f"load_tests.resume: {error}", file=sys.stderr)
            return 2
        finally:
            graph.stop()
    figures = report(waves)
    text = json.dumps({"cores": os.cpu_count(), "seed": options.seed, **figures}, indent=2)
    print(text)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if clean(figures) else 1


class UnsoundError(Exception):
    """There is nothing to compare with; the message says why."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.resume",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, default=200, help="in all (default: %(default)s)")
    add("--at-once", type=int, default=40, help="of them at once (default: %(default)s)")
    add("--kinds", nargs="+", choices=RESUMED, default=list(RESUMED), help="of requests (default: all)")
    add("--replicas", type=int, default=2, help="of the tier (default: %(default)s)")
    add("--max-tokens", type=int, default=96, help="of an answer (default: %(default)s)")
    add("--step-ms", type=float, default=15.0, help="the shortest step of an engine (default: %(default)s)")
    add("--timeout", type=float, default=90.0, metavar="S", help="of each stream (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the moments of the cuts (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    return parser


@contextmanager
def _directory() -> Iterator[Path]:
    """Yields a directory for the files of a graph, whose environment is set."""
    with tempfile.TemporaryDirectory(prefix="manta-", dir="/tmp") as name:  # short: Ray's sockets have long names
        directory = Path(name)
        prepare_directory(directory)
        os.environ.update(local_environment(directory))
        os.environ["PYTHONPATH"] = str(ROOT)  # Serve imports the application by its path
        yield directory


async def _measure(graph: Graph, switch: RouterSwitch, options: argparse.Namespace) -> list[Wave]:
    """Returns the waves. Raises UnsoundError."""
    from load_tests.chaos.graph import KEY

    chance = random.Random(options.seed)
    requests = mix(options.streams, options.max_tokens, {kind: KINDS[kind] for kind in options.kinds})
    headers, limits = {"authorization": f"Bearer {KEY}"}, httpx.Limits(max_connections=None)
    client: dict[str, Any] = {"base_url": graph.url, "headers": headers, "limits": limits, "trust_env": False}
    waves: list[Wave] = []
    async with httpx.AsyncClient(timeout=options.timeout, **client) as http:
        with tqdm(total=len(requests), unit="stream", desc="resume", file=sys.stderr) as bar:
            for start in range(0, len(requests), options.at_once):
                part = requests[start : start + options.at_once]
                expected = await send_all(graph.url, KEY, part, options.timeout)
                if (problem := next((each.problem for each in expected if each.problem), None)) is not None:
                    raise UnsoundError(f"undisturbed: {problem}")
                wave = Wave(cut_streams(part, expected, chance), expected)
                await _run(wave, http, switch, len(waves) % 2, options.timeout)
                wave.foreign = [await status_of(http, each.stream_id, OTHER_KEY) for each in wave.streams]
                waves.append(wave)
                bar.update(len(part))
        await asyncio.sleep(WINDOW_S + MARGIN_S)
        for wave in waves:
            wave.late = [await status_of(http, each.stream_id) for each in wave.streams]
    return waves


async def _run(wave: Wave, http: httpx.AsyncClient, switch: RouterSwitch, first: int, timeout_s: float) -> None:
    """Begins the streams on the router ``first``, and has them resumed on the other one once all have begun."""
    await asyncio.to_thread(switch.lead_to, first)
    switched = asyncio.Event()
    running = [asyncio.create_task(run_cut(each, http, http, switched, timeout_s)) for each in wave.streams]
    await asyncio.gather(*(each.opened.wait() for each in wave.streams))
    await asyncio.to_thread(switch.lead_to, 1 - first)
    before = switch.requests(first), switch.requests(1 - first)
    switched.set()
    await asyncio.gather(*running)
    wave.led = switch.requests(first) - before[0], switch.requests(1 - first) - before[1]


if __name__ == "__main__":
    sys.exit(main())
