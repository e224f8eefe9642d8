"""``python -m load_tests.overhead.series``: how many series Prometheus gets after many names were tried."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import yaml
from tqdm import tqdm

from cluster.config import MantaConfig
from load_tests.cpu import process_tree
from load_tests.overhead.server import Server, started, stub_server

DESCRIPTION = """\
Count the series of metrics after many names were tried. Starts the graph of `make bench`, makes an API key for each of
many tenants, and sends requests with each: for each tier, for a model that does not exist, and to a path that does not
exist, with names of their own. Then reads what Prometheus would read. Exits with 1 above the limit.
"""
ADMIN_KEY = "sk-manta-admin"  # that of dev.yaml
PORT = re.compile(r"--metrics[-_]export[-_]port=(\d+)")
EXPORT_S = 20.0  # until Ray has exported what was counted last


async def try_names(url: str, tiers: Sequence[str], tenants: int, at_once: int) -> Counter[int]:
    """Tries ``tenants`` tenants, keys, models and paths; each asks all ``tiers``. Returns the number of answers by
    status."""
    statuses: Counter[int] = Counter()
    bar = tqdm(total=tenants, desc="tenants", unit="")
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=at_once)) as client:
        places = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with places:
                body = {"tenant": f"tenant-{number}", "team": f"team-{number}"}
                made = await client.post("/admin/v1/keys", json=body, headers={"authorization": f"Bearer {ADMIN_KEY}"})
                headers = {
                    "authorization": f"Bearer {made.raise_for_status().json()['key']}",
                    "x-manta-feature": f"feature-{number}",
                }
                message = [{"role": "user", "content": "Hi"}]
                for model in (*tiers, f"model-{number}"):
                    asked = {"model": model, "max_tokens": 1, "messages": message}
                    statuses[(await client.post("/v1/chat/completions", json=asked, headers=headers)).status_code] += 1
                statuses[(await client.get(f"/v1/path-{number}", headers=headers)).status_code] += 1
                bar.update()

        await asyncio.gather(*map(one, range(tenants)))
    bar.close()
    return statuses


def metrics_urls(server: Server) -> list[str]:
    """Returns what Prometheus reads of the graph: the agent of Ray's only node."""
    found = set()
    for pid in process_tree(server.pids):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text("utf-8", errors="replace").replace("\0", " ")
        except OSError:
            continue  # it has ended
        found |= set(PORT.findall(line))
    return [f"http://127.0.0.1:{port}/metrics" for port in sorted(found) if port != "0"]


def series(text: str) -> Counter[str]:
    """Returns the number of series by metric, in Prometheus' text format."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return Counter(re.split(r"[{ ]", line, maxsplit=1)[0] for line in lines)


def tiers_of(config: Path | None) -> Sequence[str]:
    """Returns the names of the tiers of a Serve config; None: that of the stub graph."""
    if config is None:
        return ("fast",)
    (application,) = yaml.safe_load(config.read_text(encoding="utf-8"))["applications"]
    return [tier.name for tier in MantaConfig.model_validate(application["args"]).tiers]


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    with stub_server(0.001) if options.config is None else started(options.config) as server:
        url, tiers = server.url.removesuffix("/v1"), tiers_of(options.config)
        statuses = asyncio.run(try_names(url, tiers, options.tenants, options.at_once))
        asyncio.run(asyncio.sleep(EXPORT_S))
        counts: Counter[str] = Counter()
        for url in metrics_urls(server):
            counts += series(httpx.get(url, timeout=30).raise_for_status().text)
    ours = sum(count for name, count in counts.items() if name.startswith("ray_manta_"))
    print(f"answers by status: {dict(sorted(statuses.items()))}")
    print(f"{counts.total():,} series, {ours:,} of Manta; the most: {counts.most_common(5)}")
    return 0 if 0 < counts.total() < options.limit and ours else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.overhead.series",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--tenants", type=int, default=10_000, help="tenants, keys, models and paths (default: %(default)s)")
    add("--config", type=Path, help="a Serve config with real engines, whose admin key is that of dev.yaml")
    add("--at-once", type=int, default=32, help="requests at a time (default: %(default)s)")
    add("--limit", type=int, default=5_000, help="series that there may be (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
