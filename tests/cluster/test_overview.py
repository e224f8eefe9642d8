"""The overview of a running service has what the engines of all replicas have counted."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.cluster.graph import Graph

pytestmark = pytest.mark.slow

ADMIN = "sk-manta-admin"


def overview(graph: Graph) -> dict[str, Any]:
    time.sleep(0.6)  # for so long an answer is given again
    answer = httpx.get(f"{graph.url}/admin/v1/overview", headers={"authorization": f"Bearer {ADMIN}"}, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_overview_has_the_counts_of_the_replicas_of_every_tier(graph: Graph) -> None:
    asked = {"model": "fast", "max_tokens": 8, "messages": [{"role": "user", "content": "Count to ten."}]}
    before = {row["tier"]: row for row in overview(graph)["tiers"]}
    assert graph.post("/v1/chat/completions", asked).status_code == 200
    found = overview(graph)
    assert found["missing"] == []
    assert {"classifier", "embedder"} <= found["breakers"].keys()
    assert set(found["breakers"].values()) == {"closed"}
    for row in found["tiers"]:
        assert (row["wanted"], row["replicas"], row["engines"]["replicas"]) == (1, 1, 1)
    fast = next(row for row in found["tiers"] if row["tier"] == "fast")
    made = fast["engines"]["generated_tokens"] - before["fast"]["engines"]["generated_tokens"]
    assert 1 <= made <= 8
    assert sum(fast["engines"]["classes"]["standard"]["ttft"]) >= 1
    assert found["today"]["requests"] >= 1
