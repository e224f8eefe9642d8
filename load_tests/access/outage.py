"""``python -m load_tests.access.outage``: answers and ledger while Redis is gone, and while it is slow."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.local.redis_server import RedisServer
from load_tests.access.http import Admin, Exchange, stream
from load_tests.access.processes import ADMIN_KEY, redis_server, routers, wait_for_redis
from load_tests.access.proxy import SlowProxy
from load_tests.generator.stats import Summary

DESCRIPTION = """\
Measure what an outage of Redis costs. Starts a Redis behind a proxy and a router, which generates a token every 10 ms,
and keeps a number of streams running with a key that has limits: first undisturbed, then with Redis killed, then with
each of its calls 200 ms late, and undisturbed after each. Of a phase the first two seconds, in which the circuit
breaker opens, are not counted for the time to the first token. At the end the ledger must have each stream once.
"""
TENANT = "measured"
LIMITS = {"requests_per_minute": 10**6, "tokens_per_minute": 10**9, "concurrent_requests": 10**5}
OPENING_S = 2.0
TOKENS = 16  # of an answer
SLOW_S = 0.2
LEDGER_S = 60.0  # the longest that the ledger may take until it is whole


@dataclass(frozen=True, slots=True)
class Phase:
    """What happened in one phase. Times are milliseconds until the first token."""

    name: str
    streams: int
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name) / "redis") as redis:
        phases, sent, written = asyncio.run(_measure(redis, Path(name), options))
    base = phases[0]
    print(f"{'phase':>12}{'streams':>9}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}{'added p99':>11}{'max ms':>9}")
    for each in phases:
        added = each.p99_ms - base.p99_ms
        figures = f"{each.p50_ms:>9.1f}{each.p99_ms:>9.1f}{added:>11.1f}{each.max_ms:>9.1f}"
        print(f"{each.name:>12}{each.streams:>9}{each.failed:>8}{figures}")
    print(f"streams with an answer: {sent}, entries in the ledger: {written}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"streams": options.streams, "answers": sent, "entries": written, "phases": [*map(asdict, phases)]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if sent == written and not sum(phase.failed for phase in phases) else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.access.outage",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, default=64, help="at a time (default: %(default)s)")
    add("--seconds", type=float, default=20.0, help="of each phase (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


async def _measure(redis: RedisServer, directory: Path, options: argparse.Namespace) -> tuple[list[Phase], int, int]:
    """Returns the phases, the streams that had an answer, and the entries in the ledger."""
    proxy = SlowProxy(redis.url)
    url = await proxy.start()
    with routers(1, directory, {"url": url}) as (router,):
        admin, began = await asyncio.to_thread(Admin, router, ADMIN_KEY), time.time()
        key = await asyncio.to_thread(admin.create_key, TENANT, LIMITS)

        async def killed() -> None:
            redis.kill()

        async def revived() -> None:
            redis.keep_running()
            await asyncio.to_thread(wait_for_redis, redis.url)

        async def delayed() -> None:
            proxy.delay_s = SLOW_S

        async def prompt() -> None:
            proxy.delay_s = 0.0

        async def nothing() -> None:
            pass

        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("undisturbed", nothing),
            ("killed", killed),
            ("back", revived),
            ("slow", delayed),
            ("prompt", prompt),
        ]
        await _load(router, key, options.streams, 2.0)  # connections, code paths
        sent, phases = await _warmed(admin, began), []
        for name, step in steps:
            await step()
            print(f"{name}: {options.seconds:g} s of load", file=sys.stderr)
            exchanges = await _load(router, key, options.streams, options.seconds)
            phases.append(_phase(name, exchanges))
            sent += sum(exchange.status == 200 for _, exchange in exchanges)
        written = await _entries(admin, began, sent)
    await proxy.stop()
    return phases, sent, written


async def _load(url: str, key: str, streams: int, seconds: float) -> list[tuple[float, Exchange]]:
    """Keeps ``streams`` streams running. Returns each with its start, in seconds from the beginning."""
    began, found = time.perf_counter(), list[tuple[float, Exchange]]()

    async def client(number: int) -> None:
        await asyncio.sleep(number * 0.3 / streams)  # not all at once
        while (at := time.perf_counter() - began) < seconds:
            body = {"prompt": "one two three four", "max_tokens": TOKENS}
            found.append((at, await stream(url, key, body)))

    await asyncio.gather(*(client(number) for number in range(streams)))
    return found


def _phase(name: str, exchanges: Sequence[tuple[float, Exchange]]) -> Phase:
    times = Summary.of(1000 * each.first_s for at, each in exchanges if each.first_s is not None and at >= OPENING_S)
    failed = sum(not each.whole for _, each in exchanges)
    return Phase(name, len(exchanges), failed, times.p50, times.p99, times.max)


async def _warmed(admin: Admin, began: float) -> int:
    """Returns the entries of the streams before the first phase."""
    await asyncio.sleep(1.0)
    return int((await asyncio.to_thread(admin.usage, TENANT, began))["requests"])


async def _entries(admin: Admin, began: float, expected: int) -> int:
    """Returns the entries in the ledger once there are ``expected`` and a second has passed, or after LEDGER_S."""
    deadline, written = time.monotonic() + LEDGER_S, 0
    while written < expected and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        written = int((await asyncio.to_thread(admin.usage, TENANT, began))["requests"])
    await asyncio.sleep(1.0)
    return int((await asyncio.to_thread(admin.usage, TENANT, began))["requests"])


if __name__ == "__main__":
    sys.exit(main())
