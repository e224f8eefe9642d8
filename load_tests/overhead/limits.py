"""``python -m load_tests.overhead.limits``: what limits cost the graph, in pairs of runs with and without them."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from load_tests.access.http import Admin
from load_tests.generator.report import Report
from load_tests.overhead.__main__ import measure
from load_tests.overhead.server import stub_server

DESCRIPTION = """\
Measure what limits cost. Starts the graph of `make bench` with a Redis for limits and ledger, and loads it in turn with
a key that has limits and with one that has none: pairs of short runs, whose order alternates, so that what else the
machine does hits both. The CPU time of Redis counts.
"""
ADMIN_KEY = "sk-manta-admin"  # that of dev.yaml
LIMITS = {
    "requests_per_minute": 10**6,
    "tokens_per_minute": 10**9,
    "concurrent_requests": 10**5,
    "tokens_per_day": 10**12,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs right after one another: tokens per second, and CPU seconds of the server per 1,000 tokens."""

    free_tokens_per_s: float
    limited_tokens_per_s: float
    free_cpu_s: float
    limited_cpu_s: float

    @classmethod
    def of(cls, free: Report, limited: Report) -> Pair:
        """The pair of two reports."""
        cpu = [1000 * (report.server_cpu_s or 0.0) / max(report.tokens, 1) for report in (free, limited)]
        return cls(free.tokens_per_s, limited.tokens_per_s, *cpu)

    @property
    def loss(self) -> float:
        """The share of tokens per second that is lost with limits."""
        return 1 - self.limited_tokens_per_s / self.free_tokens_per_s


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with stub_server(options.step_ms / 1000, redis=True) as server:
        key = Admin(server.url.removesuffix("/v1"), ADMIN_KEY).create_key("dev", LIMITS)
        pairs = []
        for turn in range(options.pairs):
            keys = {"free": options.key, "limited": key}
            order = list(keys) if turn % 2 else list(keys)[::-1]
            reports = {name: measure(server, options.streams, options, keys[name]) for name in order}
            pairs.append(Pair.of(reports["free"], reports["limited"]))
            print(f"pair {turn + 1} of {options.pairs}: {pairs[-1].loss:+.1%} lost", file=sys.stderr)
    losses = [pair.loss for pair in pairs]
    cpu = [statistics.median(values) for values in ([p.free_cpu_s for p in pairs], [p.limited_cpu_s for p in pairs])]
    print(f"tokens/s lost with limits: median {statistics.median(losses):+.1%} of {len(pairs)} pairs")
    print(f"CPU-s per 1,000 tokens: {cpu[0]:.3f} without limits, {cpu[1]:.3f} with them")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"streams": options.streams, "pairs": [asdict(pair) for pair in pairs]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.overhead.limits",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, default=64, help="at a time (default: %(default)s)")
    add("--pairs", type=int, default=6, help="of runs (default: %(default)s)")
    add("--duration", type=float, default=6.0, help="seconds of each run (default: %(default)s)")
    add("--max-tokens", type=int, default=64, help="per answer (default: %(default)s)")
    add("--step-ms", type=float, default=10.0, help="step of the stub engine (default: %(default)s)")
    add("--key", default="sk-manta-dev", help="the key without limits (default: the one of dev.yaml)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
