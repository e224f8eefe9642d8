"""``python -m load_tests.overhead.series``: how many series Prometheus gets after many names were tried."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from tqdm import tqdm

from cluster.config import MantaConfig
from cluster.telemetry.series_bounds import SeriesBounds, excess, series_bounds
from load_tests.overhead.mixed_load import CHAT, Asked, brief_requests, mixed_requests
from load_tests.overhead.scrape import NO_PROCESS, OURS, commands, scrape, series, series_by_process
from load_tests.overhead.server import READY_S, ROOT, Server, started, stub_server

DESCRIPTION = """\
Count the series of metrics after many names were tried. Starts a graph, makes two API keys for each of many tenants,
and sends requests with them, with names of their own. Then reads what Prometheus would read. Exits with 1 above the
limit, if a process has more series than cluster/telemetry/series_bounds.py computes, or if Ray had no room.
After processes were replaced there is no limit for all series, since those of Serve stay until the node ends.

  --load mixed   streamed and whole answers of all tiers and classes, tools, schemas, embeddings, moderations,
                 collections, what the guard finds, hits and misses of the answer cache, and what is refused
  --load short   a short answer of each tier, a model and a path that do not exist
"""
ADMIN_KEY = "sk-manta-admin"  # that of dev.yaml
DEV = ROOT / "deployments" / "dev.yaml"
EXPORT_S = 20.0  # until Ray has exported what was counted last
REPLICA = "ray::ServeReplica:"
TIMEOUT_S = 120.0
LEFT, UNANSWERED = 0, -1  # in place of a status: the client left on purpose; there was no answer within TIMEOUT_S

Requests = Callable[[int], Sequence[Asked]]
"""Returns the requests of a tenant, by its number."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's two keys; with the narrow one a minute has room for one request."""

    key: str
    narrow: str


async def try_names(url: str, requests: Requests, tenants: range, at_once: int) -> Counter[int]:
    """Has each of ``tenants`` send its requests. Returns the number of answers by status, LEFT and UNANSWERED."""
    statuses: Counter[int] = Counter()
    bar = tqdm(total=len(tenants), desc="tenants", unit="")
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as client:
        places = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with places:
                statuses.update(await _statuses(client, number, requests(number)))
                bar.update()

        await asyncio.gather(*map(one, tenants))
    bar.close()
    return statuses


async def _key(client: httpx.AsyncClient, number: int, limits: Mapping[str, int]) -> str:
    body = {"tenant": f"tenant-{number}", "team": f"team-{number}", "limits": dict(limits)}
    made = await client.post("/admin/v1/keys", json=body, headers={"authorization": f"Bearer {ADMIN_KEY}"})
    return str(made.raise_for_status().json()["key"])


async def _statuses(client: httpx.AsyncClient, number: int, requests: Sequence[Asked]) -> list[int]:
    try:
        tenant = Tenant(await _key(client, number, {}), await _key(client, number, {"requests_per_minute": 1}))
    except httpx.TransportError:
        return [UNANSWERED]
    return [await _status(client, tenant, number, asked) for asked in requests]


async def _status(client: httpx.AsyncClient, tenant: Tenant, number: int, asked: Asked) -> int:
    key = tenant.narrow if asked.narrow else tenant.key
    headers = {"authorization": f"Bearer {key}", "x-manta-feature": f"feature-{number}", **asked.headers}
    try:
        async with _answer(client, asked, headers) as answer:
            if asked.leaves:
                async for _ in answer.aiter_raw():
                    return LEFT
            await answer.aread()
            return answer.status_code
    except httpx.TransportError:  # flex work waits while a tier is full of other work; connections are closed
        return UNANSWERED


@asynccontextmanager
async def _answer(client: httpx.AsyncClient, asked: Asked, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
    method = "GET" if asked.body is None else "POST"
    async with client.stream(method, asked.path, json=asked.body, headers=headers) as answer:
        yield answer


def short_requests(tiers: Sequence[str]) -> Requests:
    """Returns the requests of ``--load short``."""

    def of(number: int) -> list[Asked]:
        body = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
        models = (*tiers, f"model-{number}")
        return [*(Asked(CHAT, {"model": model, **body}) for model in models), Asked(f"/v1/path-{number}")]

    return of


def mixed(config: MantaConfig, whole: int) -> Requests:
    """Returns the requests of ``--load mixed``. The first ``whole`` tenants send all kinds. The others have short
    answers and are refused: that tries as many names, within minutes."""
    tiers = [tier.name for tier in config.tiers]
    embedding = (config.embedder and config.embedder.name) or "none"

    def of(number: int) -> list[Asked]:
        return mixed_requests(number, tiers, embedding) if number < whole else brief_requests(number, tiers[0])

    return of


def replace_processes(server: Server, deployments: Sequence[str]) -> int:
    """Kills each replica of ``deployments``, as a failure would, and waits until the service is ready again. Returns
    how many there were. Raises RuntimeError if it is not ready after READY_S seconds."""
    killed = [pid for pid, line in commands(server) if _deployment(line) in deployments]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    deadline, new = time.monotonic() + READY_S, 0
    while time.monotonic() < deadline:
        time.sleep(1)
        new = sum(_deployment(line) in deployments and pid not in killed for pid, line in commands(server))
        if new >= len(killed) and _ready(server):
            return len(killed)
    raise RuntimeError(f"{new} of {len(killed)} processes are back after {READY_S:g} s")


def _deployment(line: str) -> str:
    """Returns the deployment of a replica, by the title of its process; "": it is none."""
    return line.split()[0].split(":")[-1] if line.startswith(REPLICA) else ""


def _ready(server: Server) -> bool:
    try:
        return httpx.get(server.url.removesuffix("/v1") + "/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(frozen=True, slots=True)
class Count:
    """The series of one reading."""

    total: int
    ours: int
    lost: bool
    excess: Sequence[str]
    most: Sequence[tuple[str, int]]

    @property
    def is_bounded(self) -> bool:
        """Whether there are some of Manta, no process has too many, and none is lost."""
        return self.ours > 0 and not self.excess and not self.lost

    def __str__(self) -> str:
        lost = "; Ray has no room for more" if self.lost else ""
        return f"{self.total:,} series, {self.ours:,} of Manta; the most: {list(self.most)}{lost}"


def count(text: str, bounds: SeriesBounds) -> Count:
    """Returns the count of the series in ``text``, of a service with these bounds."""
    counts = series(text)
    ours = sum(number for name, number in counts.items() if name.startswith(OURS))
    by_process = series_by_process(text)
    is_lost = any(process == NO_PROCESS for _, process in by_process)
    return Count(counts.total(), ours, is_lost, sorted(excess(bounds, by_process)), counts.most_common(8))


@contextmanager
def graph(options: argparse.Namespace) -> Iterator[tuple[Server, MantaConfig]]:
    """Starts the graph that ``options`` name, and yields it with its settings."""
    if options.config is None and options.load == "short":
        (tier,) = (each for each in _settings(DEV).tiers if each.name == "fast")
        with stub_server(0.001) as server:
            yield server, MantaConfig.model_validate({"tiers": [tier], "router": {"keys": _settings(DEV).router.keys}})
        return
    with started(options.config or DEV) as server:
        yield server, _settings(options.config or DEV)


def _settings(path: Path) -> MantaConfig:
    (application,) = yaml.safe_load(path.read_text(encoding="utf-8"))["applications"]
    return MantaConfig.model_validate(application["args"])


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with graph(options) as (server, config):
        url, tiers, bounds = server.url.removesuffix("/v1"), [each.name for each in config.tiers], series_bounds(config)
        requests = short_requests(tiers) if options.load == "short" else mixed(config, options.whole)
        statuses = asyncio.run(try_names(url, requests, range(options.tenants), options.at_once))
        time.sleep(EXPORT_S)
        counts = [count(scrape(server), bounds)]
        print(f"answers by status: {dict(sorted(statuses.items()))}")
        print(f"at most {bounds.total:,} of Manta by the settings, and {counts[0]}")
        for _ in range(options.replace):
            replaced = replace_processes(server, ["Router", *tiers])
            asyncio.run(try_names(url, requests, range(options.tenants), options.at_once))
            time.sleep(EXPORT_S)
            counts.append(count(scrape(server), bounds))
            print(f"after {replaced} processes were replaced: {counts[-1]}")
    print(*(line for each in counts for line in each.excess), sep="\n", end="")
    return 0 if counts[0].total < options.limit and all(each.is_bounded for each in counts) else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.overhead.series",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--load", choices=("mixed", "short"), default="mixed", help="what tenants send (default: %(default)s)")
    add("--tenants", type=int, default=10_000, help="tenants, keys, models and paths (default: %(default)s)")
    add("--whole", type=int, default=30, help="tenants that send all of the mix; others a few (default: %(default)s)")
    add(
        "--config",
        type=Path,
        help="a Serve config with the admin key of dev.yaml (default: deployments/dev.yaml; with --load short a stub)",
    )
    add("--replace", type=int, default=0, help="how often all tiers and routers are replaced at the end (default: 0)")
    add("--at-once", type=int, default=32, help="requests at a time (default: %(default)s)")
    add("--limit", type=int, default=5_000, help="series that there may be (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
