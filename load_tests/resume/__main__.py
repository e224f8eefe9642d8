"""``python -m load_tests.resume``: cuts streams at random, and reads them on from the other router."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.local.environment import local_environment, prepare_directory
from load_tests.access.processes import ROOT, redis_server
from load_tests.chaos.mix import KINDS, mix
from load_tests.resume.measure import Terms, UnsoundError, measure
from load_tests.resume.report import clean, report
from load_tests.resume.router_switch import RouterSwitch

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


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with _directory() as directory, redis_server(directory / "redis") as server:
        from load_tests.chaos.graph import KEY, Graph, Setup  # Ray reads the environment when it is imported

        router = {"resume": {"window_s": WINDOW_S}}
        setup = Setup(options.replicas, options.step_ms / 1000, drain_s=5.0, state_redis=server.url, router=router)
        graph = Graph(setup)
        try:
            graph.wait_until_ready()
            requests = mix(options.streams, options.max_tokens, {kind: KINDS[kind] for kind in options.kinds})
            terms = Terms(options.at_once, options.timeout, WINDOW_S, options.seed)
            waves = asyncio.run(
                measure(graph.url, (KEY, OTHER_KEY), requests, RouterSwitch(directory / "haproxy"), terms)
            )
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


if __name__ == "__main__":
    sys.exit(main())
