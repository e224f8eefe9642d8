"""``python -m load_tests.overhead``: what the graph costs per token, and what it adds to the first one."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from load_tests.generator.options import LoadOptions
from load_tests.generator.prompts import builtin_prompts
from load_tests.generator.report import Report
from load_tests.generator.session import Session, run
from load_tests.generator.target import Target
from load_tests.overhead.server import Server, stub_server

DESCRIPTION = """\
Measure the graph itself. Starts the real one (ingress, router, lanes, replicas) around a stub engine that answers at
once, one token per step to every stream, and loads it. Whatever a token costs then, the graph costs; a first token is
due after one step, so what it takes beyond that the graph adds. CPU time is the server's alone: the processes of the
graph, without the generator. No answer comes from the cache, and no text is checked without --safety: what checks cost
is measured in pairs by load_tests.overhead.safety, since two runs of this command differ by more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    if options.url:
        context = nullcontext(Server(options.url, options.server_pid or 0))
    else:
        with_rooms = {"safety": options.safety, "varied": options.varied, "redis": options.redis}
        context = stub_server(options.step_ms / 1000, **with_rooms)  # type: ignore[assignment]
    with context as server:
        reports = {streams: measure(server, streams, options, options.key) for streams in options.streams}
    rows = [_row(streams, report, options.step_ms) for streams, report in reports.items()]
    print(_table(rows))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"step_ms": options.step_ms, "cores": os.cpu_count(), "max_tokens": options.max_tokens, "runs": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(report.clean for report in reports.values()) else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.overhead",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, nargs="+", default=[64, 256], help="concurrent streams of each run (default: 64 256)")
    add("--duration", type=float, default=15.0, help="seconds of each run (default: %(default)s)")
    add("--max-tokens", type=int, default=64, help="per answer (default: %(default)s)")
    add("--step-ms", type=float, default=10.0, help="step of the stub engine (default: %(default)s)")
    add("--safety", action="store_true", help="with the safety classifier of dev.yaml, on the same processor")
    add("--varied", action="store_true", help="answers of random words, none of which a check has read before")
    add("--redis", action="store_true", help="with the ledger in a Redis, whose CPU time counts, instead of in memory")
    add("--url", help="measure this running server instead of starting one; its step must be --step-ms")
    add("--server-pid", type=int, help="with --url: root of the server's processes, to count their CPU time")
    add("--key", default="sk-manta-dev", help="API key (default: the one of dev.yaml)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


def measure(server: Server, streams: int, options: argparse.Namespace, key: str) -> Report:
    """Loads the server with ``key``, for ``options.duration`` seconds after a second to warm up."""
    loaded(server, streams, 1.0, options, key, progress=False)  # connections, code paths, allocator
    return loaded(server, streams, options.duration, options, key).report


def loaded(
    server: Server, streams: int, seconds: float, options: argparse.Namespace, key: str, *, progress: bool = True
) -> Session:
    """Loads the server with ``key``. No request begins after ``seconds``."""
    load = LoadOptions(
        target=Target.of(server.url, key),
        model="fast",
        prompts=tuple(builtin_prompts()),
        concurrency=streams,
        max_tokens=options.max_tokens,
        duration=seconds,
        server_pids=server.pids,
        progress=progress,
    )
    return asyncio.run(run(load))


def _row(streams: int, report: Report, step_ms: float) -> dict[str, Any]:
    figures = report.json()
    cpu = report.server_cpu_s
    return {
        "streams": streams,
        "tokens_per_s": report.tokens_per_s,
        "server_cpu_s_per_1000_tokens": None if cpu is None or not report.tokens else 1000 * cpu / report.tokens,
        "generator_cpu_s_per_1000_tokens": 1000 * report.generator_cpu_s / max(report.tokens, 1),
        "added_ttft_p50_ms": 1000 * report.ttft.p50 - step_ms,
        "added_ttft_p99_ms": 1000 * report.ttft.p99 - step_ms,
        "itl_p50_ms": 1000 * report.itl.p50,
        "itl_p99_ms": 1000 * report.itl.p99,
        "requests": report.requests,
        "problems": figures["problems"],
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    heads = {
        "streams": "streams",
        "tokens_per_s": "tokens/s",
        "server_cpu_s_per_1000_tokens": "CPU-s/1k",
        "added_ttft_p50_ms": "TTFT+ p50 ms",
        "added_ttft_p99_ms": "TTFT+ p99 ms",
        "itl_p99_ms": "ITL p99 ms",
        "requests": "requests",
    }
    lines = ["".join(f"{head:>14}" for head in heads.values())]
    for row in rows:
        lines.append("".join(f"{_cell(row[key]):>14}" for key in heads))
        lines.extend(f"  FAILED: {name}: {count}" for name, count in row["problems"].items())
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
