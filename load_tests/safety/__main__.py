"""``python -m load_tests.safety``: attacks and harmless texts through every endpoint and field of a server."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import httpx

from load_tests.overhead.server import ROOT, started
from load_tests.safety.probe import TIMEOUT_S, Row, TextSet, probe, texts_of
from load_tests.safety.probe_plot import draw
from load_tests.safety.shapes import SHAPES, Shape

DESCRIPTION = """\
Send attacks and harmless texts to a server in every shape in which a text can reach the model, and count what its
policy flags: refused, answered with the refusal, or flagged by /v1/moderations. Without --url a server is started with
--config. Sets are JSONL files with a member "text" in each line.
"""
ATTACKS = ROOT / "tests" / "safety" / "attacks.jsonl"
BENIGN = ROOT / "tests" / "safety" / "benign_twins.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    sets = [
        TextSet(path.stem, harmful, texts_of(path, options.most))
        for paths, harmful in ((options.attacks, True), (options.benign, False))
        for path in paths
    ]
    names = set(options.shapes or (shape.name for shape in SHAPES))
    shapes = [shape for shape in SHAPES if shape.name in names]
    with started(options.config) if options.url is None else nullcontext() as server:
        url = options.url if server is None else server.url
        client = httpx.AsyncClient(
            base_url=url.rstrip("/").removesuffix("/v1"),
            headers={"authorization": f"Bearer {options.key}"},
            timeout=TIMEOUT_S,
        )
        rows = asyncio.run(_probed(client, options, shapes, sets))
    print(table(rows))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"rows": [asdict(row) | {"rate": round(row.rate, 4)} for row in rows]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(rows, options.plot)
    return 1 if any(row.failed for row in rows) else 0


async def _probed(
    client: httpx.AsyncClient, options: argparse.Namespace, shapes: Sequence[Shape], sets: Sequence[TextSet]
) -> list[Row]:
    async with client:
        return await probe(client, options.model, shapes, sets, options.at_once, _progress)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.safety",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", help="of a running server, such as http://localhost:8000 (default: one is started)")
    add("--config", type=Path, default=ROOT / "deployments" / "dev.yaml", help="of the server that is started")
    add("--key", default="sk-manta-dev", help="API key (default: %(default)s)")
    add("--model", default="fast", help="tier (default: %(default)s)")
    add("--attacks", type=Path, nargs="+", default=[ATTACKS], help="sets that should be flagged")
    add("--benign", type=Path, nargs="+", default=[BENIGN], help="sets that should not")
    add("--most", type=int, default=60, help="texts of each set (default: %(default)s)")
    add("--at-once", type=int, default=4, help="requests at the same time (default: %(default)s)")
    add("--shapes", nargs="+", choices=[shape.name for shape in SHAPES], help="default: all")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    add("--plot", type=Path, metavar="OUT", help="draw them, as PNG or SVG")
    return parser


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as text."""
    lines = [f"{'shape':22} {'set':16} {'texts':>5} {'flagged':>8} {'failed':>6} {'p50 ms':>8} {'p99 ms':>8}"]
    lines += map(_line, rows)
    return "\n".join(lines)


def _line(row: Row) -> str:
    counts = f"{row.texts:5} {row.rate:8.1%} {row.failed:6}"
    return f"{row.shape:22} {row.set:16} {counts} {row.p50_ms:8.1f} {row.p99_ms:8.1f}"


def _progress(row: Row) -> None:
    print(f"{row.shape}, {row.set}: {row.flagged} of {row.texts} flagged", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
