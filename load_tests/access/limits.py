"""``python -m load_tests.access.limits``: how much of an allowance several routers admit under four times the offer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from load_tests.access.http import Admin, stream
from load_tests.access.processes import ADMIN_KEY, CONFIG, redis_server, routers

DESCRIPTION = """\
Measure whether limits are one for all routers. Starts a Redis and some routers, each a process of its own, and three
keys: one with a limit of requests, one of tokens, one of money. Sixteen clients for each key, spread over the routers,
offer four times its limit for a minute. What was used is what the ledger has, not what the limiter believes. A request
whose limits cannot be checked within the deadline is refused here (503, "unchecked"); on a busy machine there are some.
"""
CLIENTS = 16
OFFER = 4  # times the limit
REQUESTS, TOKENS = 60, 1000  # per minute
PROMPT, ANSWER = "one two three four", 4  # 4 tokens in, 4 out
PER_REQUEST = 8  # tokens
SETTINGS = {**CONFIG, "limits": {"when_unavailable": "refuse"}}
MONEY = TOKENS / 1e6  # at the price in CONFIG


@dataclass(frozen=True, slots=True)
class Row:
    """What one key used of its limit. ``share`` is of the limit; ``refused`` counts answers 429, ``unchecked`` 503."""

    routers: int
    limit: str
    allowed: float
    used: float
    share: float
    admitted: int
    refused: int
    unchecked: int
    other: int


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    rows = [row for count in options.routers for row in _measure(count, options.seconds)]
    print(
        f"{'routers':>8}{'limit':>22}{'allowed':>12}{'used':>12}{'share':>9}{'admitted':>10}{'refused':>9}{'unchecked':>11}"
    )
    for row in rows:
        figures = (
            f"{row.allowed:>12g}{row.used:>12g}{row.share:>9.2%}{row.admitted:>10}{row.refused:>9}{row.unchecked:>11}"
        )
        print(f"{row.routers:>8}{row.limit:>22}{figures}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "seconds": options.seconds,
            "clients": CLIENTS,
            "offer": OFFER,
            "runs": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(0.97 <= row.share <= 1.01 and not row.other for row in rows) else 1


def _cells(*values: int | str) -> str:
    return "".join(f"{value:>11}" for value in values)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.access.limits",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--routers", type=int, nargs="+", default=[1, 2, 3], help="routers of each run (default: 1 2 3)")
    add("--seconds", type=float, default=60.0, help="of each run; the limits are of a minute (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


def _measure(count: int, seconds: float) -> list[Row]:
    """Runs the three keys at the same time, each with clients of its own."""
    offers = {
        "requests_per_minute": (REQUESTS, REQUESTS),
        "tokens_per_minute": (TOKENS, TOKENS / PER_REQUEST),
        "money_per_month": (MONEY, TOKENS / PER_REQUEST),
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            redis_server(directory / "redis") as redis,
            routers(count, directory, {"url": redis.url}, SETTINGS) as urls,
        ):
            admin, began = Admin(urls[0], ADMIN_KEY), time.time()
            keys = {limit: admin.create_key(limit, {limit: allowed}) for limit, (allowed, _) in offers.items()}
            print(f"{count} routers: {seconds:g} s of load", file=sys.stderr)
            statuses = asyncio.run(_offer(urls, {keys[limit]: each for limit, (_, each) in offers.items()}, seconds))
            time.sleep(1.0)  # the ledger is written in the background
            rows = []
            for limit, (allowed, _) in offers.items():
                usage, answers = admin.usage(limit, began), statuses[keys[limit]]
                used = {
                    "requests_per_minute": usage["requests"],
                    "tokens_per_minute": usage["input_tokens"] + usage["output_tokens"],
                    "money_per_month": usage["cost"],
                }[limit]
                admitted, refused = answers.count(200), answers.count(429)
                unchecked = answers.count(503)
                other = len(answers) - admitted - refused - unchecked
                rows.append(Row(count, limit, allowed, used, used / allowed, admitted, refused, unchecked, other))
            return rows


async def _offer(urls: Sequence[str], keys: dict[str, float], seconds: float) -> dict[str, list[int]]:
    """Sends OFFER times the requests that each key allows in a minute, evenly. Returns the statuses by key."""
    statuses: dict[str, list[int]] = {key: [] for key in keys}

    async def client(key: str, number: int, pause_s: float) -> None:
        now = asyncio.get_running_loop().time
        end, due = now() + seconds, now() + pause_s * number / CLIENTS
        while due < end:
            await asyncio.sleep(due - now())
            if now() >= end:
                break  # a client that is late must not use the next minute's allowance
            body = {"prompt": PROMPT, "max_tokens": ANSWER}
            statuses[key].append((await stream(urls[number % len(urls)], key, body)).status)
            due += pause_s

    async with asyncio.TaskGroup() as group:
        for key, per_minute in keys.items():
            for number in range(CLIENTS):
                group.create_task(client(key, number, 60 * CLIENTS / (OFFER * per_minute)))
    return statuses


if __name__ == "__main__":
    sys.exit(main())
