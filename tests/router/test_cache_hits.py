"""The answer cache over HTTP: the same request is a hit, and whatever decides the answer makes another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.app_factory import build_app
from router.config.router import RouterConfig
from router.router_ports import CacheParts, RouterPorts
from tests.router.cached import KEYS, TEXT, Cached, text_of
from tests.state.cached import all_of


async def test_the_same_question_twice_is_an_exact_hit(cached: Cached) -> None:
    first = await cached.ask()
    cached.clock.advance(12)
    second = await cached.ask()
    assert first.headers["x-manta-cache"] == "miss; new"
    assert second.headers["x-manta-cache"] == "exact; age=12"
    assert text_of(second) == text_of(first)
    assert second.json()["usage"] == first.json()["usage"]
    assert second.json()["id"] != first.json()["id"]
    assert len(cached.backend.requests) == 1
    assert "x-manta-cache-entry" not in first.headers
    assert [entry.id for entry in await all_of(cached.entries.entries())] == [second.headers["x-manta-cache-entry"]]


async def test_a_streamed_answer_is_stored_too(cached: Cached) -> None:
    await cached.ask(stream=True)
    assert await cached.status() == "exact; age=0"


async def test_choices_and_prompts_keep_their_places(cached: Cached) -> None:
    body = {"model": "fast", "temperature": 0, "prompt": ["one", "two"], "n": 2, "max_tokens": 9}
    first, second = await cached.post(TEXT, body), await cached.post(TEXT, body)
    assert second.headers["x-manta-cache"] == "exact; age=0"
    assert second.json()["choices"] == first.json()["choices"]


@pytest.mark.parametrize(
    "more",
    [
        {"key": "sk-other"},
        {"model": "balanced"},
        {"text": "What is a quark"},
        {"max_tokens": 5},
        {"stop": ["x"]},
        {"n": 2},
        {"frequency_penalty": 0.5},
        {"logit_bias": {"7": 1}},
        {"seed": 1, "temperature": 0.5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "What is a quark?"}]},
        {"messages": [{"role": "user", "content": "What is a quark?", "name": "ann"}]},
        {"cache": {"namespace": "b"}},
    ],
    ids=str,
)
async def test_whatever_decides_the_answer_makes_another_question(cached: Cached, more: dict[str, Any]) -> None:
    await cached.ask()
    assert (await cached.status(**more)).startswith("miss")
    assert (await cached.status(**more)).startswith("exact")


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True},
        {"user": "ann"},
        {"priority": -1},
        {"deadline_s": 30},
        {"max_cost": 1.0},
        {"seed": 5},
        {"temperature": 1, "top_k": 1},
        {"metadata": {"a": "b"}},
        {"cache": {"semantic": False}},
    ],
    ids=str,
)
async def test_what_does_not_decide_the_answer_makes_none(cached: Cached, more: dict[str, Any]) -> None:
    await cached.ask()
    assert (await cached.status(**more)).startswith("exact")


@pytest.mark.parametrize("changed_field", ["model", "version"])
async def test_another_model_behind_the_tier_is_a_miss(changed_field: str) -> None:
    before = Cached()
    await before.ask()
    after = Cached(store=before.entries)
    assert (await after.status()).startswith("exact")
    tiers = after.backend.tiers()
    after.backend.tiers = lambda: [replace(tier, **{changed_field: "another"}) for tier in tiers]  # type: ignore[method-assign,arg-type]
    changed = Cached(store=before.entries)
    changed.backend.tiers = after.backend.tiers  # type: ignore[method-assign]
    changed.app = build_app(
        RouterConfig.model_validate({"keys": KEYS, "cache": {"enabled": True}}),
        changed.backend,
        RouterPorts(
            clock=changed.clock,
            cache=CacheParts(before.entries),
        ),
    )
    assert await changed.status() == "miss; new"


@pytest.mark.parametrize(
    "parameter", [{"top_k": 9}, {"min_p": 0.1}, {"repetition_penalty": 1.1}, {"top_p": 0.7}], ids=str
)
async def test_parameters_beyond_openais_count_in_sampled_answers(cached: Cached, parameter: dict[str, Any]) -> None:
    """LiteLLM's issue 5049: a changed top_k gets the former answer."""
    await cached.ask(temperature=0.5, seed=1)
    assert await cached.status(temperature=0.5, seed=1, **parameter) == "miss; new"


async def test_prompts_of_token_ids_are_found_by_the_same_request_alone(cached: Cached) -> None:
    body = {"model": "fast", "temperature": 0, "prompt": [1, 2, 3]}
    first, second = await cached.post(TEXT, body), await cached.post(TEXT, body)
    assert (first.headers["x-manta-cache"], second.headers["x-manta-cache"]) == ("miss; new", "exact; age=0")
    (entry,) = await all_of(cached.entries.entries())
    assert not entry.semantic
    assert (await cached.post(TEXT, {**body, "prompt": "1 2 3"})).headers["x-manta-cache"] == "miss; new"
