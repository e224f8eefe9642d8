"""What a key may do: a refusal is a 403 that names what is missing, and a list shows only what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from router.config.keys import KeyConfig
from tests.access.service import Service, config

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CHAT = {"prompt": None, "messages": [{"role": "user", "content": "Hi"}]}
PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("rights", "path", "fields", "code", "named"),
    [
        ({"tiers": ["fast"]}, "/v1/completions", {"model": "frontier"}, "tier_not_allowed", "'frontier'"),
        ({"models": ["auto"]}, "/v1/completions", {"model": "fast"}, "model_not_allowed", "'fast'"),
        ({"tools": ["search"]}, PATH, CHAT | {"tools": [TOOL]}, "tool_not_allowed", "'weather'"),
        ({"endpoints": [PATH]}, "/v1/completions", {}, "endpoint_not_allowed", "'/v1/completions'"),
        ({"role": "viewer"}, "/v1/completions", {}, "endpoint_not_allowed", "'/v1/completions'"),
    ],
)
async def test_what_a_key_lacks_is_named(
    rights: dict[str, Any], path: str, fields: dict[str, Any], code: str, named: str
) -> None:
    service = Service()
    key = (await service.create(**rights))["key"]
    body = {name: value for name, value in fields.items() if value is not None}
    async with service.client(key) as http:
        prompt = {} if "messages" in body else {"prompt": "Hi"}
        refused = await http.post(path, json={"model": "fast"} | prompt | body)
    assert refused.status_code == 403, refused.text
    assert refused.json()["error"]["code"] == code
    assert named in refused.json()["error"]["message"]


async def test_a_tool_that_a_key_lacks_is_named_by_its_place() -> None:
    service = Service()
    key = (await service.create(tools=["search"]))["key"]
    allowed = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
    async with service.client(key) as http:
        refused = await http.post(PATH, json={"model": "fast"} | CHAT | {"tools": [allowed, TOOL]})

    assert refused.json()["error"]["param"] == "tools[1]"


@pytest.mark.parametrize(
    ("rights", "names"),
    [
        ({}, ["fast", "balanced", "frontier", "auto"]),
        ({"tiers": ["balanced"]}, ["balanced", "auto"]),
        ({"models": ["auto", "fast"]}, ["fast", "auto"]),
        ({"tiers": ["fast"], "models": ["frontier", "fast"]}, ["fast"]),
    ],
)
async def test_a_key_sees_its_own_models_only(rights: dict[str, Any], names: list[str]) -> None:
    service = Service()
    key = (await service.create(**rights))["key"]
    async with service.client(key) as http:
        assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == names
        assert (await http.get("/v1/models/frontier")).status_code == (200 if "frontier" in names else 404)


@pytest.mark.parametrize("model", ["auto", "smart"])
async def test_a_key_whose_tiers_are_gone_is_refused_and_sees_no_model(model: str) -> None:
    gone = KeyConfig(key="sk-gone", tenant="acme", team="core", tiers=("retired",))
    service = Service(config(aliases={"smart": "auto"}, keys=(gone,)))
    refused = await service.ask("sk-gone", model=model)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tier_not_allowed"), refused.text
    async with service.client("sk-gone") as http:
        assert (await http.get("/v1/models")).json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "header", "feature", "ignored"),
    [
        ({"feature": "search"}, None, "search", None),
        ({"feature": "search"}, "chat", "search", "x-manta-feature"),
        ({"feature": "search", "feature_header": True}, "chat", "chat", None),
        ({}, "chat", "chat", None),
        ({"feature_header": False}, "chat", "", "x-manta-feature"),
    ],
)
async def test_the_feature_is_the_keys_or_the_headers_where_the_key_allows_it(
    fields: dict[str, Any], header: str | None, feature: str, ignored: str | None
) -> None:
    service = Service()
    key = (await service.create(**fields))["key"]
    headers = {} if header is None else {"x-manta-feature": header}
    async with service.client(key, **headers) as http:
        answer = await http.post("/v1/completions", json={"model": "fast", "prompt": "Hi"})
        assert answer.headers.get("x-manta-ignored") == ignored
        rows = (await http.get("/v1/usage?group_by=feature")).json()["data"]
    assert [row["feature"] for row in rows] == [feature]


async def test_a_feature_that_is_no_name_is_refused() -> None:
    service = Service()
    async with service.client("sk-user", **{"x-manta-feature": "a b"}) as http:
        refused = await http.post("/v1/completions", json={"model": "fast", "prompt": "Hi"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_feature")
