"""Sends texts in every shape to a server, and counts what was flagged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from load_tests.safety.quantiles import quantiles
from load_tests.safety.shapes import Shape, was_flagged

TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class TextSet:
    """Texts of one kind. ``harmful``: flagging them is right."""

    name: str
    harmful: bool
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a set in one shape. ``failed``: responses that say nothing of the text, such as a 503. Latency in
    milliseconds, of the whole response."""

    shape: str
    set: str
    harmful: bool
    texts: int
    flagged: int
    failed: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """The share of the texts with an answer that were flagged."""
        return self.flagged / max(1, self.texts - self.failed)


def texts_of(path: Path, most: int) -> list[str]:
    """Returns the member ``text`` of each line of a JSONL file, at most ``most``, evenly over the file. Raises
    ValueError, naming the line, for a line without one."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = json.loads(line)
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"{path}:{number}: there is no text")
        found.append(text)
    step = max(1.0, len(found) / most)
    return [found[int(place * step)] for place in range(min(most, len(found)))]


async def probe(
    client: httpx.AsyncClient,
    model: str,
    shapes: Sequence[Shape],
    sets: Sequence[TextSet],
    at_once: int,
    progress: Callable[[Row], None],
) -> list[Row]:
    """Sends each text of ``sets`` in each shape, ``at_once`` at a time, and returns a row for each shape and set."""
    rows = []
    for shape in shapes:
        for each in sets:
            rows.append(await _row(client, model, shape, each, at_once))
            progress(rows[-1])
    return rows


async def _row(client: httpx.AsyncClient, model: str, shape: Shape, texts: TextSet, at_once: int) -> Row:
    free, latencies = asyncio.Semaphore(at_once), list[float]()

    async def ask(text: str) -> bool | None:
        body = shape.body(text)
        if shape.path != "/v1/moderations":
            body["model"] = model
        async with free:
            begun = time.perf_counter()
            response = await client.post(shape.path, json=body)
            latencies.append(1000 * (time.perf_counter() - begun))
        return was_flagged(shape, response.status_code, response.text)

    found = await asyncio.gather(*map(ask, texts.texts))
    took = quantiles(latencies)
    return Row(
        shape.name,
        texts.name,
        texts.harmful,
        len(found),
        sum(each is True for each in found),
        sum(each is None for each in found),
        took["p50"],
        took["p99"],
    )
