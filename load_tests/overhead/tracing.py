"""``python -m load_tests.overhead.tracing``: what traces, or all that telemetry sends, cost the graph, in pairs."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from load_tests.generator.report import Report
from load_tests.overhead.__main__ import measure
from load_tests.overhead.server import free_port, stub_server

DESCRIPTION = """\
Measure what traces cost. Starts the graph of `make bench` twice for each pair: once without a receiver of traces, and
once with one that runs as a process of its own and gets the traces of a share of the requests. The order alternates.
The CPU time of the receiver does not count. With --all the second one pushes its metrics each second too, and writes
JSON logs. What Ray's own metrics cost is in both.
"""
START_S = 20.0


class Receiver(BaseHTTPRequestHandler):
    """Takes each export, and drops it."""

    protocol_version = "HTTP/1.1"  # one connection for all exports, as collectors have

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Logs nothing."""


@contextmanager
def receiver() -> Iterator[str]:
    """A receiver of OTLP by HTTP in another process; its endpoint for traces. Raises RuntimeError if it ends."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "load_tests.overhead.tracing", "--receive", str(port)])
    try:
        time.sleep(1.0)
        if process.poll() is not None:
            raise RuntimeError(f"the receiver ended with code {process.returncode}")
        yield f"http://127.0.0.1:{port}/v1/traces"
    finally:
        process.terminate()
        process.wait(START_S)


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    if options.receive is not None:
        ThreadingHTTPServer(("127.0.0.1", options.receive), Receiver).serve_forever()
    losses, cpu = [], []
    with receiver() as endpoint:
        traced: dict[str, Any] = {"endpoint": endpoint, "sample_ratio": options.sample_ratio}
        if options.all:
            metrics = {"endpoint": endpoint.replace("traces", "metrics"), "interval_s": 1}
            traced |= {"metrics": metrics, "logs": {"format": "json"}}
        for turn in range(options.pairs):
            order: list[dict[str, Any]] = [{}, traced] if turn % 2 else [traced, {}]
            reports = {bool(telemetry): _run(telemetry, options) for telemetry in order}
            losses.append(1 - reports[True].tokens_per_s / reports[False].tokens_per_s)
            cpu.append(_cpu(reports[True]) / _cpu(reports[False]) - 1)
            print(
                f"pair {turn + 1} of {options.pairs}: {losses[-1]:+.1%} tokens/s, {cpu[-1]:+.1%} CPU", file=sys.stderr
            )
    print(f"{options.streams} streams, {options.sample_ratio:.0%} of the requests traced, {options.pairs} pairs:")
    print(f"tokens/s lost: median {statistics.median(losses):+.1%} ({min(losses):+.1%} to {max(losses):+.1%})")
    print(f"CPU-s per token: median {statistics.median(cpu):+.1%} ({min(cpu):+.1%} to {max(cpu):+.1%})")
    return 0


def _run(telemetry: dict[str, Any], options: argparse.Namespace) -> Report:
    with stub_server(options.step_ms / 1000, telemetry=telemetry) as server:
        return measure(server, options.streams, options, options.key)


def _cpu(report: Report) -> float:
    """CPU seconds of the server per token."""
    return (report.server_cpu_s or 0.0) / max(report.tokens, 1)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.overhead.tracing",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, default=256, help="at a time (default: %(default)s)")
    add("--pairs", type=int, default=4, help="of runs (default: %(default)s)")
    add("--sample-ratio", type=float, default=1.0, help="share of requests whose traces are sent (default: all)")
    add("--all", action="store_true", help="also push metrics, and write JSON logs")
    add("--duration", type=float, default=6.0, help="seconds of each run (default: %(default)s)")
    add("--max-tokens", type=int, default=64, help="per answer (default: %(default)s)")
    add("--step-ms", type=float, default=10.0, help="step of the stub engine (default: %(default)s)")
    add("--key", default="sk-manta-dev", help="API key (default: the one of dev.yaml)")
    add("--receive", type=int, metavar="PORT", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
