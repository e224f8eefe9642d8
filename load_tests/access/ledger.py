"""``python -m load_tests.access.ledger``: whether the ledger has what the engine has counted, whatever happens."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config import StateConfig
from cluster.local.environment import local_environment, prepare_directory
from cluster.state.redis_store import RedisStore
from load_tests.access.engines import FAILING
from load_tests.access.http import Admin, Exchange, Leave, stream
from load_tests.access.processes import ADMIN_KEY, redis_server

if TYPE_CHECKING:
    from load_tests.access.graph import Graph

DESCRIPTION = """\
Measure whether the ledger is what the engine has counted, to the token. Starts a Redis and the graph of dev.yaml with
its tier fast and two routers, and sends streams that are cancelled at random points, whose clients vanish, that fail in
the engine, and with four answers. With --kill, a router is killed (SIGKILL) in the middle. Then compares the sums of
the ledger with the engine's counters, and waits until no reservation is left.
"""
TENANTS = ("measured", FAILING)
LIMITS = {"requests_per_minute": 10**6, "tokens_per_minute": 10**9, "concurrent_requests": 10**5}
LEDGER_S = 60.0  # the longest that the ledger may take until it has everything
WORDS = ("harbour", "lantern", "orchard", "compass", "meadow", "thunder", "violin", "granite")


@dataclass(frozen=True, slots=True)
class Plan:
    """One request. ``leave_after``: events of the stream that are read; None: all."""

    kind: str
    tenant: str
    body: dict[str, Any]
    leave_after: int | None = None
    leave: Leave = Leave.CLOSE


@dataclass(slots=True)
class Result:
    """What was found. Tokens of input are those that the engine computed or found in its cache.

    ``answers`` counts the streams by their kind and HTTP status; 0: no answer. ``broken`` counts those that ended
    without an answer or, if they were to be read whole, before their end. ``outcomes`` are those of the entries. Beside
    those that fail in the engine, ``failed`` are those whose router was
    killed.
    """

    killed: int
    streams: dict[str, int]
    answers: dict[str, int]
    broken: int
    outcomes: dict[str, int]
    engine_tokens: dict[str, int]
    ledger_tokens: dict[str, int]
    reservations_left_s: float | None

    @property
    def exact(self) -> bool:
        """Whether the ledger has what the engine has counted, and all reservations are back within 30 s."""
        left_s = self.reservations_left_s
        return self.engine_tokens == self.ledger_tokens and left_s is not None and left_s <= 30


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="manta-", dir="/tmp") as name:  # short: Ray's sockets have long names
        directory = Path(name)
        prepare_directory(directory)
        os.environ.update(local_environment(directory))
        with redis_server(directory / "redis") as redis:
            from load_tests.access.graph import Graph  # Ray reads the environment when it is imported

            graph = Graph(options.routers, redis.url, directory / "journal")
            try:
                result = _measure(graph, redis.url, directory, options)
            finally:
                graph.stop()
    print(json.dumps(asdict(result), indent=2))
    print("the ledger is what the engine has counted" if result.exact else "THE LEDGER DIFFERS", file=sys.stderr)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return 0 if result.exact else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.access.ledger",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cancelled", type=int, default=1000, help="streams that are cancelled (default: %(default)s)")
    add("--vanished", type=int, default=200, help="streams whose client vanishes (default: %(default)s)")
    add("--failed", type=int, default=50, help="streams that fail in the engine (default: %(default)s)")
    add("--branched", type=int, default=100, help="streams with four answers (default: %(default)s)")
    add("--concurrency", type=int, default=32, help="streams at a time (default: %(default)s)")
    add("--max-tokens", type=int, default=200, help="of an answer (default: %(default)s)")
    add("--routers", type=int, default=2, help="default: %(default)s")
    add("--kill", action="store_true", help="kill a router on the way")
    add("--kill-at", type=float, default=0.5, help="the share of streams begun by then (default: %(default)s)")
    add("--seed", type=int, default=7, help="of the order and the points (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


def _plans(options: argparse.Namespace) -> list[Plan]:
    """Returns all requests, in a random order."""
    draw = random.Random(options.seed)

    def body(number: int, **fields: Any) -> dict[str, Any]:
        prompt = " ".join(draw.choices(WORDS, k=draw.randrange(2, 40)))
        return {"prompt": f"{number} {prompt}", "max_tokens": options.max_tokens, "ignore_eos": True, **fields}

    def point() -> int:
        return draw.randrange(options.max_tokens)

    plans = [Plan("cancelled", TENANTS[0], body(n), point()) for n in range(options.cancelled)]
    plans += [Plan("vanished", TENANTS[0], body(n), point(), Leave.VANISH) for n in range(options.vanished)]
    plans += [Plan("failed", FAILING, body(n)) for n in range(options.failed)]
    plans += [Plan("branched", TENANTS[0], body(n, n=4)) for n in range(options.branched)]
    draw.shuffle(plans)
    return plans


def _measure(graph: Graph, redis_url: str, directory: Path, options: argparse.Namespace) -> Result:
    admin, began = Admin(graph.url, ADMIN_KEY), time.time()
    keys = {tenant: admin.create_key(tenant, LIMITS) for tenant in TENANTS}
    plans, before = _plans(options), graph.stats()
    victims = iter(graph.router_pids() if options.kill else [])
    answers, broken, killed = asyncio.run(_send(graph.url, keys, plans, options, victims))
    left_s = asyncio.run(_reservations_left(redis_url, directory))
    after = graph.stats()
    cached = after.cached_tokens - before.cached_tokens
    engine_tokens = {
        "input": after.prompt_tokens - before.prompt_tokens + cached,
        "cached_input": cached,
        "output": after.generated_tokens - before.generated_tokens,
    }
    admin = Admin(graph.url, ADMIN_KEY)  # a new connection: the former one may have been to the router that was killed
    deadline = time.monotonic() + LEDGER_S
    while (ledger_tokens := _ledger_tokens(admin, began)) != engine_tokens and time.monotonic() < deadline:
        time.sleep(0.5)  # the ledger is written in the background
    return Result(
        killed=killed,
        streams=dict(Counter(plan.kind for plan in plans)),
        answers=answers,
        broken=broken,
        outcomes=admin.outcomes(TENANTS, began),
        engine_tokens=engine_tokens,
        ledger_tokens=ledger_tokens,
        reservations_left_s=left_s,
    )


def _ledger_tokens(admin: Admin, began: float) -> dict[str, int]:
    """Returns the tokens in the ledger, by kind."""
    usages = [admin.usage(tenant, began) for tenant in TENANTS]
    kinds = ("input", "cached_input", "output")
    return {kind: int(sum(usage[f"{kind}_tokens"] for usage in usages)) for kind in kinds}


async def _send(
    url: str, keys: dict[str, str], plans: Sequence[Plan], options: argparse.Namespace, victims: Iterator[int]
) -> tuple[dict[str, int], int, int]:
    """Sends all requests and kills one of ``victims`` on the way. Returns the streams by kind and status, the number of
    broken ones, and the process that was killed; 0: none."""
    waiting, killed, done, broken, answers = list(plans), 0, 0, 0, Counter[str]()
    kill_at = round(len(plans) * (1 - options.kill_at))

    async def client() -> None:
        nonlocal killed, done, broken
        while waiting:
            plan = waiting.pop()
            if len(waiting) == kill_at and (victim := next(victims, 0)):
                os.kill(victim, signal.SIGKILL)
                killed = victim
            exchange = await stream(url, keys[plan.tenant], plan.body, plan.leave_after, plan.leave)
            answers[f"{plan.kind} {exchange.status}"] += 1
            broken += _is_broken(plan, exchange)
            done += 1
            if done % 100 == 0:
                print(f"{done} of {len(plans)} streams", file=sys.stderr)

    await asyncio.gather(*(client() for _ in range(options.concurrency)))
    return dict(sorted(answers.items())), broken, killed


def _is_broken(plan: Plan, exchange: Exchange) -> bool:
    return exchange.status != 200 or (plan.leave_after is None and not exchange.whole)


async def _reservations_left(redis_url: str, directory: Path) -> float | None:
    """Returns the seconds until no reservation is left; None: there still are some after a minute."""
    store = RedisStore(StateConfig(journal=directory / "reader"), redis_url)
    await store.start()
    started = time.monotonic()
    try:
        while (waited := time.monotonic() - started) < 60:
            if not sum([await store.open_reservations(tenant) for tenant in TENANTS]):
                return round(waited, 1)
            await asyncio.sleep(0.2)
        return None
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
