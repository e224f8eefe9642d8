"""``python -m load_tests.cache_cost``: what looking questions up costs a running service of which none is a hit."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from tqdm import tqdm

from load_tests.access.http import stream
from load_tests.cache_serving import interval

ROOT: Final = Path(__file__).resolve().parents[1]
SETTLE_S: Final = 0.5  # answers are stored after they are sent
DESCRIPTION: Final = """\
Ask a running service (`make serve`) questions that it has not seen, each twice: once past the cache ("cache": {"mode":
"off"}) and once with it, in blocks that take turns to be first. The ratio of both times tells what the key, the
embedding, the search of the index and the storing of answers cost, wherever they run. CPU times are those of the whole
machine, this program's included, so nothing else should run. The namespace of each run is a new one, so that no answer
is there already; hits by meaning, which would flatter the cache, are counted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        blocks = list(questions(options.questions, options.pairs + 1, options.block, options.seed))
    except (OSError, ValueError) as error:
        print(f"load_tests.cache_cost: {error}", file=sys.stderr)
        return 2
    cost = Cost()
    asyncio.run(measure(blocks, options, cost))
    measured = cost.seconds[1:]  # the first block warms up
    ratios = [off / on for off, on in measured]
    low, high = interval(ratios)
    each_ms = 1000 / options.block
    off, on = (each_ms * statistics.median(times) for times in zip(*measured, strict=True))
    cpu = [(each_ms * past, each_ms * through) for past, through in cost.cpu_seconds[1:]]
    more = [through - past for past, through in cpu]
    print(f"{options.model}, {options.block} questions at {options.streams} streams, at most {options.tokens} tokens")
    print(f"ms for each question: past the cache {off:.2f}, with it {on:.2f}")
    print(f"ms of CPU, medians: past the cache {statistics.median(past for past, _ in cpu):.1f}", end=", ")
    print(f"with it {statistics.median(more):+.1f} (95 %: {interval(more)[0]:+.1f} to {interval(more)[1]:+.1f})")
    print(f"hits: {cost.hits} of {len(blocks) * options.block}; blocked by the guard: {cost.blocked // 2}")
    print(f"throughput with / past, median of {len(ratios)} pairs: {statistics.median(ratios):.4f}", end=" ")
    print(f"(95 %: {low:.4f} to {high:.4f})")
    return 0


def questions(path: Path, blocks: int, size: int, seed: int) -> Iterator[list[str]]:
    """Yields blocks of different questions. Raises OSError, and ValueError if there are too few."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = sorted({str(json.loads(line)["text_a"]) for line in file})
    if len(found) < blocks * size:
        raise ValueError(f"{path} has {len(found)} questions, and {blocks * size} are needed")
    drawn = random.Random(seed).sample(found, blocks * size)
    for start in range(0, len(drawn), size):
        yield drawn[start : start + size]


@dataclass(slots=True)
class Cost:
    """``seconds``: of each block, past the cache and with it; ``cpu_seconds``: of the machine meanwhile. ``hits``:
    answers that came out of the cache. ``blocked``: requests that the guard refused."""

    seconds: list[tuple[float, float]] = field(default_factory=list)
    cpu_seconds: list[tuple[float, float]] = field(default_factory=list)
    hits: int = 0
    blocked: int = 0


async def measure(blocks: Sequence[list[str]], options: argparse.Namespace, cost: Cost) -> None:
    """Asks each block past the cache and with it."""
    namespace = f"cost-{time.time_ns()}"
    modes: list[dict[str, Any]] = [{"mode": "off"}, {"namespace": namespace}]
    for number, block in enumerate(tqdm(blocks, unit="pairs", disable=not sys.stderr.isatty())):
        times, cpu = [0.0, 0.0], [0.0, 0.0]
        for at in (0, 1) if number % 2 else (1, 0):
            before = busy_seconds()
            times[at] = await asked(block, modes[at], options, cost)
            await asyncio.sleep(SETTLE_S)
            cpu[at] = busy_seconds() - before
        cost.seconds.append((times[0], times[1]))
        cost.cpu_seconds.append((cpu[0], cpu[1]))


def busy_seconds() -> float:
    """Returns the CPU time of all processes of the machine so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


async def asked(block: Sequence[str], cache: dict[str, Any], options: argparse.Namespace, cost: Cost) -> float:
    """Asks the questions, ``streams`` at a time. Returns the seconds until all are answered. Raises RuntimeError if
    one is not."""
    waiting, started = list(reversed(block)), time.perf_counter()

    async def client() -> None:
        while waiting:
            body = {
                "model": options.model,
                "messages": [{"role": "user", "content": waiting.pop()}],
                "max_tokens": options.tokens,
                "temperature": 0,
                "cache": cache,
            }
            exchange = await stream(options.url, options.key, body, path="/v1/chat/completions")
            if exchange.headers.get("x-manta-safety") == "blocked":
                cost.blocked += 1  # in both halves, since the guard comes first
            elif not exchange.whole or exchange.status != 200:
                raise RuntimeError(f"a question was not answered: {exchange}")
            cost.hits += exchange.headers.get("x-manta-cache", "").startswith(("exact", "semantic"))

    await asyncio.gather(*(client() for _ in range(options.streams)))
    return time.perf_counter() - started


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.cache_cost",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="of the service (default: %(default)s)")
    add("--key", default="sk-manta-dev", help="an API key (default: that of deployments/dev.yaml)")
    add("--model", default="fast", help="the tier (default: %(default)s)")
    add("--questions", type=Path, default=ROOT.parent / "shared/data/cache/qqp_pairs.jsonl.gz", help="JSON Lines")
    add("--pairs", type=int, default=20, help="blocks that are asked twice (default: %(default)s)")
    add("--block", type=int, default=96, help="questions of a block (default: %(default)s)")
    add("--streams", type=int, default=16, help="at a time (default: %(default)s)")
    add("--tokens", type=int, default=128, help="of each answer, at most (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the questions that are drawn (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
