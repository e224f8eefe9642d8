"""Overviews of a service whose engines' counts are scripted, and how they are shown."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from cluster.admin.top_view import page
from engine.api import LATENCY_BOUNDS_S
from router.ports.engine_counts import EngineCounts
from tests.access.service import Service

BUCKETS = len(LATENCY_BOUNDS_S) + 1


class ScriptedCounts:
    """The counts of two replicas of ``fast``, which grow with each look; those of other tiers do not answer."""

    def __init__(self) -> None:
        self.looks = 0

    async def read(self) -> Mapping[str, Sequence[EngineCounts]]:
        self.looks += 1
        times = [0] * BUCKETS
        times[6] = 10 * self.looks  # up to 100 ms
        one = EngineCounts(
            waiting={"standard": 3},
            arrivals={"standard": 20 * self.looks},
            refused={"batch": 2},
            ttft={"standard": times},
            itl=times,
            generated_tokens=500 * self.looks,
        )
        return {"fast": [one, EngineCounts(generated_tokens=100)]}


async def overview(service: Service) -> dict[str, Any]:
    async with service.client() as http:
        answer = await http.get("/admin/v1/overview")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def shown(found: Any, **options: Any) -> str:
    console = Console(width=132, record=True, file=io.StringIO())
    console.print(page(found, **options))
    return console.export_text()
