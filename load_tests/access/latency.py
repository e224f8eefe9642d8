"""``python -m load_tests.access.latency``: what access, limits and ledger add to a request."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.config import StateConfig
from cluster.state.redis_store import RedisStore
from engine.api import SamplingParams, Usage
from load_tests.access.http import Admin, stream
from load_tests.access.processes import ADMIN_KEY, CONFIG, redis_server, routers
from load_tests.generator.stats import Summary
from router.access.authenticator import Authenticator
from router.access.config_api_keys import ConfigKeys
from router.access.key_registry import KeyRegistry
from router.access.stored_key import KeyOwner
from router.config.limits import LimitsConfig
from router.config.router import RouterConfig
from router.inference_request import InferenceRequest
from router.limits.limiter import Limiter
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.ledger_store import LedgerEntry
from router.ports.state_store import StateStore

DESCRIPTION = """\
Measure what access, limits and the ledger add to a request at 64 streams. First the calls themselves, in this process:
authenticate and reserve, for which a request waits, and settle with the ledger entry, with the state in Redis and in
memory. Then the time to the first token of a router, with limits in Redis and without limits and Redis, in turn.
"""
LIMITS = LimitsConfig(requests_per_minute=10**6, tokens_per_minute=10**9, concurrent_requests=10**5)
ANSWER = 32  # tokens
PROMPT = "one two three four"
REQUEST = InferenceRequest(
    "fast", [PROMPT], SamplingParams(max_tokens=ANSWER), "prompt", writer=lambda stamp: NotImplemented
)
SPARE_S = (0.2, 0.6)  # the time of an answer, drawn evenly


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds of one measure."""

    name: str
    count: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, name: str, seconds: Sequence[float]) -> Row:
        """The percentiles of durations."""
        times = Summary.of(1000 * each for each in seconds)
        return cls(name, times.count, times.p50, times.p99)


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name) / "redis") as redis:
        directory = Path(name)
        rows = asyncio.run(_calls("memory", MemoryStore(SystemClock()), options))
        config = StateConfig(journal=directory / "journal", timeout_s=2.0)
        rows += asyncio.run(_calls("Redis", RedisStore(config, redis.url), options))
        rows += _first_tokens(redis.url, directory, options)
    print(f"{'measure':>44}{'count':>8}{'p50 ms':>9}{'p99 ms':>9}")
    for row in rows:
        print(f"{row.name:>44}{row.count:>8}{row.p50_ms:>9.3f}{row.p99_ms:>9.3f}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"streams": options.streams, "seconds": options.seconds, "runs": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.access.latency",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, default=64, help="at a time (default: %(default)s)")
    add("--seconds", type=float, default=20.0, help="of each measure (default: %(default)s)")
    add("--slices", type=int, default=4, help="turns that each router gets (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


async def _calls(name: str, store: StateStore, options: argparse.Namespace) -> list[Row]:
    """Times the calls of one request in this process, with the state in ``store``."""
    print(f"calls, state in {name}: {options.seconds:g} s", file=sys.stderr)
    clock, settings = SystemClock(), RouterConfig.model_validate(CONFIG)
    registry = KeyRegistry(store, clock)
    authenticator = Authenticator(settings.access, ConfigKeys(settings.keys), registry, None, clock)
    limiter = Limiter(store, settings.limits, {}, lambda _, usage: usage.completion_tokens)
    before, after, draw = list[float](), list[float](), random.Random(7)
    await store.start()
    await limiter.start()
    _, key = await registry.create(KeyOwner(tenant="measured", limits=LIMITS))
    end = time.perf_counter() + options.seconds

    async def client() -> None:
        await asyncio.sleep(draw.uniform(0, SPARE_S[1]))
        while (started := time.perf_counter()) < end:
            principal = await authenticator.authenticate(f"Bearer {key.text}")
            hold = await limiter.reserve(principal.tenant, principal.key_id, principal.limits, "fast", REQUEST, None)
            before.append(time.perf_counter() - started)
            await asyncio.sleep(draw.uniform(*SPARE_S))
            started = time.perf_counter()
            limiter.settle(hold, Usage(4, ANSWER, 0), finished=True)
            store.record(_entry(len(after)))
            after.append(time.perf_counter() - started)

    await asyncio.gather(*(client() for _ in range(options.streams)))
    await limiter.close()
    await store.close()
    return [Row.of(f"authenticate + reserve, {name}", before), Row.of(f"settle + entry, {name}", after)]


def _entry(number: int) -> LedgerEntry:
    """Returns an entry as long as those of requests."""
    labels = {"team": "core", "feature": "", "tier": "fast", "version": "steady", "key": "k", "outcome": "finished"}
    amounts = {"requests": 1, "input_tokens": 4, "cached_input_tokens": 0, "output_tokens": ANSWER, "cost": ANSWER}
    return LedgerEntry(f"e{number}", "measured", int(time.time() * 1000), labels, amounts, "{" + " " * 750 + "}")


def _first_tokens(redis_url: str, directory: Path, options: argparse.Namespace) -> list[Row]:
    """Times the first tokens of a router with limits in Redis, and of one without, in turn."""
    folders = [directory / name for name in ("with", "without")]
    for folder in folders:
        folder.mkdir()
    with (
        routers(1, folders[0], {"url": redis_url, "timeout_s": 2.0}) as (limited,),
        routers(1, folders[1], None) as (free,),
    ):
        keys = {
            limited: Admin(limited, ADMIN_KEY).create_key("limited", LIMITS.model_dump(exclude_none=True)),
            free: Admin(free, ADMIN_KEY).create_key("free", {}),
        }
        times: dict[str, list[float]] = {limited: [], free: []}
        for turn in range(options.slices):
            print(f"first tokens, turn {turn + 1} of {options.slices}", file=sys.stderr)
            for url in (limited, free) if turn % 2 else (free, limited):
                times[url] += asyncio.run(_load(url, keys[url], options.streams, options.seconds / options.slices))
    return [
        Row.of("first token, limits in Redis", times[limited]),
        Row.of("first token, no limits, no Redis", times[free]),
    ]


async def _load(url: str, key: str, streams: int, seconds: float) -> list[float]:
    """Keeps streams running. Returns the seconds until the first token of each, but for the first of each client."""
    end, found = time.perf_counter() + seconds, list[float]()

    async def client(number: int) -> None:
        await asyncio.sleep(number * 0.3 / streams)
        first = True
        while time.perf_counter() < end:
            exchange = await stream(url, key, {"prompt": PROMPT, "max_tokens": ANSWER})
            if exchange.first_s is not None and not first:
                found.append(exchange.first_s)
            first = False

    await asyncio.gather(*(client(number) for number in range(streams)))
    return found


if __name__ == "__main__":
    sys.exit(main())
