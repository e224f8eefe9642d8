"""``python -m load_tests.cache_serving``: what the answer cache gives and costs in serving."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from load_tests.access.http import stream
from load_tests.access.processes import ADMIN_KEY, CONFIG, redis_server, routers
from load_tests.generator.stats import Summary

DESCRIPTION = """\
Measure the answer cache through HTTP, with Redis and router processes of their own. First
the time to the first token of hits, one at a time. Then the throughput of two routers in turn, one with the cache on
and one with it off, on questions that never repeat: 0 % hits. The ratio of each pair of slices is taken, so that the
machine's other work falls on both. With a model that costs nothing, the cache's share is the largest that it can be;
--model deployments/models/fast has a real one.
"""
QUESTION = "What is the seventh of the names on the list of the second committee?"


@dataclass(frozen=True, slots=True)
class Report:
    """Milliseconds until the first token of a hit; requests per second without and with the cache, medians of the
    slices; and the ratio of each pair: with over without."""

    hits: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    off_per_s: float
    on_per_s: float
    ratios: Sequence[float]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    report = measure(options)
    low, high = interval(report.ratios)
    times = f"p50 {report.ttft_p50_ms:.2f} ms, p99 {report.ttft_p99_ms:.2f} ms"
    print(f"time to the first token of {report.hits} hits: {times}")
    load = f"{options.tokens} tokens at {options.streams} streams"
    print(f"requests/s of {load}: off {report.off_per_s:.1f}, on {report.on_per_s:.1f}")
    print(f"on / off, median of {len(report.ratios)} pairs: {report.ratio:.4f} (95 %: {low:.4f} to {high:.4f})")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {**asdict(report), "ratio": report.ratio, "ratio_95": [low, high]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.cache_serving",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--hits", type=int, default=500, help="hits that are timed (default: %(default)s)")
    add("--pairs", type=int, default=12, help="pairs of slices (default: %(default)s)")
    add("--seconds", type=float, default=3.0, help="of each slice (default: %(default)s)")
    add("--streams", type=int, default=16, help="at a time (default: %(default)s)")
    add("--tokens", type=int, default=128, help="of each answer (default: %(default)s)")
    add("--model", help="a model's directory: with its engine in each router's process (default: it costs nothing)")
    add("--step-ms", type=float, default=0.0, help="a token's time (default: %(default)s, as fast as it can)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the median by the sign test: the order statistics that it lies between."""
    ranked, count = sorted(ratios), len(ratios)
    cut, chance = 0, 0.5**count
    while cut < count // 2 and (chance := chance + _choose(count, cut + 1)) <= 0.025:
        cut += 1
    return ranked[cut], ranked[count - 1 - cut]


def _choose(count: int, taken: int) -> float:
    ways = 1.0
    for step in range(taken):
        ways *= (count - step) / (step + 1)
    return ways * 0.5**count


def measure(options: argparse.Namespace) -> Report:
    """Starts a Redis and two routers, and measures."""
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name) / "redis") as redis:
        folders = [Path(name) / each for each in ("on", "off")]
        for folder in folders:
            folder.mkdir()
        state = {"url": redis.url, "timeout_s": 2.0}
        configs: list[dict[str, Any]] = [
            {**CONFIG, "cache": {"enabled": True}},
            {**CONFIG, "cache": {"enabled": False}},
        ]
        with (
            routers(1, folders[0], state, configs[0], options.step_ms, stop=True, model=options.model) as (on,),
            routers(1, folders[1], state, configs[1], options.step_ms, stop=True, model=options.model) as (off,),
        ):
            first = asyncio.run(_hits(on, options))
            numbers, rates = itertools.count(), {on: list[float](), off: list[float]()}
            for url in (on, off):
                asyncio.run(_throughput(url, numbers, options))  # warms up
            for pair in range(options.pairs):
                print(f"pair {pair + 1} of {options.pairs}", file=sys.stderr)
                for url in (on, off) if pair % 2 else (off, on):
                    rates[url].append(asyncio.run(_throughput(url, numbers, options)))
    times = Summary.of(1000 * each for each in first)
    ratios = [with_ / without for with_, without in zip(rates[on], rates[off], strict=True)]
    medians = statistics.median(rates[off]), statistics.median(rates[on])
    return Report(times.count, times.p50, times.p99, *medians, ratios)


async def _hits(url: str, options: argparse.Namespace) -> list[float]:
    """Returns the seconds until the first token of hits, one at a time."""
    body = {"prompt": QUESTION, "max_tokens": options.tokens, "temperature": 0}
    await stream(url, ADMIN_KEY, body)
    await asyncio.sleep(0.2)  # it is stored beside the request
    found = []
    for _ in range(options.hits):
        exchange = await stream(url, ADMIN_KEY, body)
        assert exchange.whole, "every stream ends"
        assert exchange.first_s is not None, "every stream begins"
        found.append(exchange.first_s)
    return found


async def _throughput(url: str, numbers: Iterator[int], options: argparse.Namespace) -> float:
    """Keeps streams of questions running that were never asked. Returns requests per second."""
    started = time.perf_counter()
    end, count = started + options.seconds, 0

    async def client() -> None:
        nonlocal count
        while time.perf_counter() < end:
            body = {"prompt": f"{QUESTION} {next(numbers)}", "max_tokens": options.tokens, "temperature": 0}
            whole = (await stream(url, ADMIN_KEY, body)).whole
            count += whole  # not in one line, which would read the count before the stream and lose what others add

    await asyncio.gather(*(client() for _ in range(options.streams)))
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
