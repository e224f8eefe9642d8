"""An application with four tiers of other names, aliases and no ``auto``, beside the dev.yaml graph, below a prefix.

Its engines are stubs: four more models would take a minute to start, and what is looked at is which tier answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from load_tests.overhead.factory import StubFactory
from load_tests.overhead.stub import CONTEXT
from tests.cluster.graph import Graph, eventually

pytestmark = pytest.mark.slow

NAMES = ("nano", "small.v2", "Medium-8B", "x_large")
ALIASES = {"gpt-4o-mini": "small.v2", "gpt-4o": "x_large"}
KEY, NARROW_KEY = "sk-other", "sk-narrow"
QUESTION = [{"role": "user", "content": "What does KV cache mean?"}]

ARGUMENTS: dict[str, Any] = {
    "router": {
        "keys": [
            {"key": KEY, "tenant": "dev", "team": "core"},
            {"key": NARROW_KEY, "tenant": "dev", "team": "core", "tiers": ["nano", "x_large"]},
        ],
        "auto": None,
        "aliases": ALIASES,
    },
    "ingress": {"num_cpus": 0, "drain_timeout_s": 5},
    "tiers": [
        {"name": name, "num_cpus": 0, "drain_timeout_s": 5, "engine": {"model": f"models/for-{name}"}} for name in NAMES
    ],
}


class Other:
    """The application, asked over HTTP and, beside it, through Serve handles."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._url = f"{graph.url}/other"

    def get(self, path: str, key: str = KEY) -> httpx.Response:
        return httpx.get(f"{self._url}{path}", headers={"authorization": f"Bearer {key}"}, timeout=60)

    def ask(self, model: str, key: str = KEY) -> httpx.Response:
        body = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 16}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{self._url}/v1/chat/completions", json=body, headers=headers, timeout=60)

    def generated(self) -> dict[str, int]:
        """Tokens that each tier has generated so far."""
        return {name: self._graph.describe(name, "other")[0].stats.generated_tokens for name in NAMES}


@pytest.fixture(scope="module")
def other(graph: Graph) -> Iterator[Other]:
    config = MantaConfig.model_validate(ARGUMENTS)
    serve.run(build_with(config, StubFactory(0.001)), name="other", route_prefix="/other")
    made = Other(graph)
    eventually(lambda: made.get("/healthz").status_code == 200, "every tier is ready")
    yield made
    serve.delete("other")


def test_models_are_the_tiers_and_the_aliases(other: Other) -> None:
    models = other.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == [*NAMES, *ALIASES]
    assert [model["root"] for model in models] == [f"for-{ALIASES.get(name, name)}" for name in (*NAMES, *ALIASES)]
    assert {model["context_length"] for model in models} == {CONTEXT}


@pytest.mark.parametrize("model", [*NAMES, *ALIASES])
def test_each_tier_and_each_alias_is_answered_by_its_tier(other: Other, model: str) -> None:
    tier = ALIASES.get(model, model)
    before = other.generated()
    response = other.ask(model)
    assert response.status_code == 200, response.text
    assert response.headers["x-manta-tier"] == tier
    after = other.generated()
    assert {name: after[name] - before[name] for name in NAMES} == {name: 16 * (name == tier) for name in NAMES}


def test_auto_and_the_tiers_of_others_do_not_exist(other: Other) -> None:
    assert [other.ask(model).status_code for model in ("auto", "fast")] == [404, 404]


def test_a_key_sees_its_own_tiers_and_their_aliases(other: Other) -> None:
    models = other.get("/v1/models", NARROW_KEY).json()["data"]
    assert [model["id"] for model in models] == ["nano", "x_large", "gpt-4o"]
    assert other.ask("gpt-4o", NARROW_KEY).status_code == 200
    refused = other.ask("small.v2", NARROW_KEY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tier_not_allowed")
    assert "small.v2" in refused.json()["error"]["message"]
