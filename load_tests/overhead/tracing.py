"""``python -m load_tests.overhead.tracing``: what traces, or all that telemetry sends, cost the graph, in pairs."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from cluster.telemetry.config import MetricsConfig
from load_tests.generator.options import LoadOptions
from load_tests.generator.prompts import builtin_prompts
from load_tests.generator.session import run
from load_tests.generator.target import Target
from load_tests.overhead.pairs import Statistic, interval, median_ratio, order, ratio
from load_tests.overhead.paused_server import paused, running
from load_tests.overhead.process_groups import GROUPS, GroupMeter
from load_tests.overhead.server import Server, free_port, stub_server, wait_until_ready

DESCRIPTION = """\
Measure what traces cost. Starts the graph of `make bench` twice: without a receiver of traces, and with one that runs
as a process of its own and gets the traces of a share of the requests. Loads them in turn, in pairs of short runs whose
order alternates (ABBA); the one that is not loaded is stopped meanwhile. All runs have the same work. The CPU time of
the receiver, which counts bytes and reads none of them, does not count. With --all the second one pushes its metrics
too, every --interval seconds, and writes JSON logs; runs should be longer than that (--answers). What Ray's own metrics
cost is in both. Prints tokens per second and CPU time with telemetry over those without: the median of the pairs, and
the ratio of all runs together, each with its 95 % interval. The interval knows nothing of what differs between two
starts of the same server: --same measures that, with no telemetry in either. With --add the pairs of earlier runs with
the same settings count too, each a fresh start.
"""
START_S = 20.0
MAX_S = 600.0  # of a run, which ends with its work
SURELY_KEPT = 20.0  # requests of a run that are sampled on average, so that some are
SETTINGS = ("same", "streams", "sample_ratio", "all", "interval", "answers", "max_tokens", "step_ms")
"""The options that pairs must have in common to be counted together."""
EXPORT_S = 1.5  # after a run: processes send the last traces within a second, and that is part of the cost


@dataclass(frozen=True, slots=True)
class Half:
    """One run, the CPU seconds of each group of processes in it, and the bytes that it had the receiver get."""

    tokens: int
    seconds: float
    cpu_s: Mapping[str, float]
    received: int

    @property
    def server_cpu(self) -> float:
        """The CPU seconds of the server for 1,000 tokens."""
        return 1000 * sum(self.cpu_s[group] for group in GROUPS) / max(1, self.tokens)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs right after one another, with telemetry and without."""

    traced: Half
    plain: Half


class Receiver(BaseHTTPRequestHandler):
    """Takes each export and drops it. A GET is answered with the bytes of all so far."""

    protocol_version = "HTTP/1.1"  # one connection for all exports, as collectors have
    sizes: ClassVar[list[int]] = []  # of the exports; connections have threads, which may all append

    def do_POST(self) -> None:
        self.sizes.append(len(self.rfile.read(int(self.headers["content-length"]))))
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(str(sum(self.sizes)).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Logs nothing."""


@contextmanager
def receiver() -> Iterator[str]:
    """A receiver of OTLP by HTTP in another process; its endpoint for traces. Raises RuntimeError if it fails."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "load_tests.overhead.tracing", "--receive", str(port)])
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}/v1/traces"
    finally:
        process.terminate()
        process.wait(START_S)


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    if options.receive is not None:
        ThreadingHTTPServer(("127.0.0.1", options.receive), Receiver).serve_forever()
    asked = {name: getattr(options, name) for name in SETTINGS}
    pairs = [pair for path in options.add for pair in read(path, asked)]
    step_s = options.step_ms / 1000
    with (
        receiver() as endpoint,
        stub_server(step_s, telemetry={} if options.same else settings(endpoint, options)) as traced,
        paused(traced),
        stub_server(step_s, telemetry={}) as plain,
        paused(plain),
    ):
        for server in (traced, plain):
            first = measure(server, options, endpoint)  # connections, code paths, allocator: a first run takes longer
        check_length(first.seconds, asked)
        for turn in range(options.pairs):
            halves: dict[str, Half] = {}
            for name, server in order(turn, ("traced", traced), ("plain", plain)):
                halves[name] = measure(server, options, endpoint)
            check_received(halves["traced"].received, halves["plain"].received, asked)
            pairs.append(Pair(**halves))
            write(options.json, asked, pairs)  # each time: what a later fault ends is not lost
            print(f"pair {turn + 1} of {options.pairs}: {_ratios(pairs[-1:])}", file=sys.stderr)
    traced_share = 0.0 if options.same else options.sample_ratio
    print(f"{options.streams} streams, {traced_share:.0%} of the requests traced, {len(pairs)} pairs:")
    print(summary(pairs))
    return 0


def write(path: Path | None, asked: Mapping[str, Any], pairs: Sequence[Pair]) -> None:
    """Writes the settings and all pairs so far to ``path``, which ``read`` reads; None: nowhere."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"settings": dict(asked), "pairs": [asdict(pair) for pair in pairs]}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def measure(server: Server, options: argparse.Namespace, endpoint: str) -> Half:
    """Loads a paused server with ``options.answers`` requests for each stream. ``endpoint`` is the receiver's. Raises
    RuntimeError if a request fails."""
    with running(server):
        before = received(endpoint)
        meter = GroupMeter(server.pids)
        load = LoadOptions(
            target=Target.of(server.url, options.key),
            model="fast",
            prompts=tuple(builtin_prompts()),
            concurrency=options.streams,
            requests=options.streams * options.answers,
            duration=MAX_S,
            max_tokens=options.max_tokens,
            progress=False,
        )
        report = asyncio.run(run(load)).report
        if not report.clean:
            raise RuntimeError(f"requests failed: {report.problems}")
        time.sleep(EXPORT_S)
        cpu_s = {**meter.seconds(), "generator": report.generator_cpu_s}
        return Half(report.tokens, report.seconds, cpu_s, received(endpoint) - before)


def received(endpoint: str) -> int:
    """Returns the bytes of all exports that the receiver has had."""
    with urllib.request.urlopen(endpoint, timeout=START_S) as answer:
        return int(answer.read())


def check_received(traced: int, plain: int, asked: Mapping[str, Any]) -> None:
    """Raises RuntimeError if a run sent no telemetry that surely should have, or some that should not: what is lost
    costs nothing. ``traced`` and ``plain`` are bytes."""
    kept = asked["streams"] * asked["answers"] * asked["sample_ratio"]  # requests, about
    sends = not asked["same"] and (asked["all"] or kept >= SURELY_KEPT)
    if plain or (sends and not traced) or (asked["same"] and traced):
        raise RuntimeError(f"the receiver got {traced:,} bytes of the one server, and {plain:,} of the other")


def check_length(seconds: float, asked: Mapping[str, Any]) -> None:
    """Raises RuntimeError if a run of ``seconds`` may have no push of metrics in it, although they are measured."""
    if asked["all"] and not asked["same"] and seconds < asked["interval"]:
        raise RuntimeError(f"a run takes {seconds:.0f} s, less than --interval: more --answers, or a shorter interval")


def settings(endpoint: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of telemetry that ``options`` ask for. ``endpoint`` is the receiver's, for traces."""
    traces: dict[str, Any] = {"endpoint": endpoint, "sample_ratio": options.sample_ratio, "slow_s": MAX_S}
    if not options.all:
        return traces
    metrics = {"endpoint": endpoint.replace("traces", "metrics"), "interval_s": options.interval}
    return traces | {"metrics": metrics, "logs": {"format": "json"}}


def read(path: Path, asked: Mapping[str, Any]) -> list[Pair]:
    """Returns the pairs of a file that --json wrote. Raises ValueError if its settings are not those that are
    ``asked``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    found = document.get("settings") if isinstance(document, dict) else None
    if found != dict(asked):
        raise ValueError(f"{path}: other settings: {found}")
    return [Pair(Half(**pair["traced"]), Half(**pair["plain"])) for pair in document["pairs"]]


def speeds(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Returns the seconds of each pair, without telemetry and with it. Both runs have the same work, so that the ratio
    of two such times, or of their sums, is that of the tokens per second with telemetry and without."""
    return [(pair.plain.seconds, pair.traced.seconds) for pair in pairs]


def costs(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Returns the server's CPU seconds for 1,000 tokens of each pair, with telemetry and without."""
    return [(pair.traced.server_cpu, pair.plain.server_cpu) for pair in pairs]


def summary(pairs: Sequence[Pair]) -> str:
    """Returns the figures of all pairs, for a terminal."""
    lines = [f"{'':18}{'median of pairs':32}all runs together"]
    for name, figures in (("tokens/s", speeds(pairs)), ("CPU-s per token", costs(pairs))):
        shares = [_share(figures, statistic) for statistic in (median_ratio, ratio)]
        lines.append(f"{name:18}{shares[0]:32}{shares[1]}")
    sent = sum(pair.traced.received for pair in pairs) / max(1, sum(pair.traced.tokens for pair in pairs))
    lines.append(f"{sent:.1f} bytes of telemetry for each token")
    lines.append("CPU-s for 1,000 tokens, with telemetry and without:")
    for group in (*GROUPS, "generator"):
        traced = _cpu([pair.traced for pair in pairs], group)
        plain = _cpu([pair.plain for pair in pairs], group)
        lines.append(f"  {group:10}{traced:9.4f}{plain:9.4f}{traced - plain:+9.4f}")
    return "\n".join(lines)


def _share(figures: Sequence[tuple[float, float]], statistic: Statistic) -> str:
    low, high = interval(figures, statistic=statistic)
    return f"{statistic(figures) - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%})"


def _ratios(pairs: Sequence[Pair]) -> str:
    return f"{ratio(speeds(pairs)) - 1:+.1%} tokens/s, {ratio(costs(pairs)) - 1:+.1%} CPU"


def _cpu(halves: Sequence[Half], group: str) -> float:
    """Returns the CPU seconds of a group of processes for 1,000 tokens."""
    return 1000 * sum(half.cpu_s[group] for half in halves) / max(1, sum(half.tokens for half in halves))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.overhead.tracing",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, default=256, help="at a time (default: %(default)s)")
    add("--pairs", type=int, default=18, help="of runs (default: %(default)s)")
    add("--sample-ratio", type=float, default=1.0, help="share of requests whose traces are sent (default: all)")
    add("--same", action="store_true", help="no telemetry in either server: what two starts differ by")
    add("--all", action="store_true", help="also push metrics, and write JSON logs")
    add(
        "--interval",
        type=float,
        default=MetricsConfig().interval_s,
        metavar="SECONDS",
        help="between two pushes of metrics (default: that of telemetry.metrics.interval_s, %(default)s)",
    )
    add("--answers", type=int, default=3, help="of each stream in a run (default: %(default)s)")
    add("--max-tokens", type=int, default=64, help="per answer (default: %(default)s)")
    add("--step-ms", type=float, default=10.0, help="step of the stub engine (default: %(default)s)")
    add("--key", default="sk-manta-dev", help="API key (default: the one of dev.yaml)")
    add("--json", type=Path, metavar="OUT", help="write the figures of all pairs")
    add("--add", type=Path, nargs="+", default=[], metavar="FILE", help="figures of earlier runs, which count too")
    add("--receive", type=int, metavar="PORT", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
