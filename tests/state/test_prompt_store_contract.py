"""What every implementation of ``PromptStore`` does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.config import StateConfig
from cluster.state import redis_prompt_store
from cluster.state.redis_prompt_store import RedisPromptStore
from router import memory_prompt_store
from router.memory_prompt_store import MemoryPromptStore
from router.ports.prompt_store import (
    Activation,
    ActivationKind,
    PromptStore,
    PromptStoreFullError,
    PromptSummary,
    StoredVersion,
)
from router.ports.state_store import StateUnavailableError


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PromptStore]:
    """A store that holds nothing yet."""
    made: PromptStore = MemoryPromptStore()
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
        made = RedisPromptStore(config, server.url)
    await made.start()
    yield made
    await made.close()


def activation(version: int, kind: ActivationKind = ActivationKind.ACTIVATE, by: str = "key-1/ann") -> Activation:
    return Activation(version, kind, 1_000 + version, by)


async def test_versions_count_from_1_and_stay_as_they_are(store: PromptStore) -> None:
    numbers = [await store.add("acme", "greet", f'{{"n": {n}, "ü": 1}}') for n in range(3)]

    assert numbers == [1, 2, 3]
    assert await store.version("acme", "greet", 2) == StoredVersion(2, '{"n": 1, "ü": 1}')
    assert [each.version for each in await store.versions("acme", "greet")] == [1, 2, 3]
    assert await store.version("acme", "greet", 4) is None
    assert await store.version("acme", "greet", 0) is None
    assert await store.version("other", "greet", 1) is None
    assert await store.versions("acme", "none") == []


async def test_a_prompt_has_no_active_version_until_one_is_activated(store: PromptStore) -> None:
    await store.add("acme", "greet", "one")
    assert await store.active("acme", "greet") is None

    assert await store.activate("acme", "greet", activation(1))

    assert await store.active("acme", "greet") == StoredVersion(1, "one")
    assert await store.active("other", "greet") is None


async def test_a_version_that_is_missing_cannot_be_activated(store: PromptStore) -> None:
    await store.add("acme", "greet", "one")

    assert not await store.activate("acme", "greet", activation(2))
    assert not await store.activate("acme", "none", activation(1))

    assert await store.active("acme", "greet") is None
    assert await store.activations("acme", "greet") == []


async def test_activations_are_remembered_in_their_order(store: PromptStore) -> None:
    for n in range(2):
        await store.add("acme", "greet", f"{n}")
    made = [activation(1), activation(2), activation(1, ActivationKind.ROLLBACK, "key-2")]
    for each in made:
        await store.activate("acme", "greet", each)

    assert await store.activations("acme", "greet") == made
    assert await store.active("acme", "greet") == StoredVersion(1, "0")


async def test_prompts_are_listed_by_tenant_and_id(store: PromptStore) -> None:
    for tenant, prompt_id in (("b{}:", "x"), ("acme", "greet"), ("acme", "ask"), ("acme", "ask")):
        await store.add(tenant, prompt_id, "{}")
    await store.activate("acme", "ask", activation(1))

    ask, greet = PromptSummary("acme", "ask", 1, 2), PromptSummary("acme", "greet", None, 1)
    assert await store.prompts() == [ask, greet, PromptSummary("b{}:", "x", None, 1)]
    assert await store.prompts("acme") == [ask, greet]
    assert await store.prompts("none") == []


async def test_versions_that_are_added_at_once_have_different_numbers(store: PromptStore) -> None:
    numbers = await asyncio.gather(*(store.add("acme", "greet", f"{n}") for n in range(20)))

    assert sorted(numbers) == list(range(1, 21))
    found = {each.version: each.document for each in await store.versions("acme", "greet")}
    assert [found[number] for number in numbers] == [f"{n}" for n in range(20)]


async def test_a_tenant_and_a_prompt_have_bounds(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory_prompt_store, redis_prompt_store):
        monkeypatch.setattr(module, "MAX_PROMPTS", 2)
        monkeypatch.setattr(module, "MAX_VERSIONS", 2)
        monkeypatch.setattr(module, "MAX_ACTIVATIONS", 3)
    for prompt_id in ("a", "a", "b"):
        await store.add("acme", prompt_id, "{}")

    with pytest.raises(PromptStoreFullError, match="2 versions"):
        await store.add("acme", "a", "{}")
    with pytest.raises(PromptStoreFullError, match="2 prompts"):
        await store.add("acme", "c", "{}")
    assert await store.add("other", "c", "{}") == 1
    for version in (1, 2, 1, 2):
        await store.activate("acme", "a", activation(version))
    assert [each.version for each in await store.activations("acme", "a")] == [2, 1, 2]


async def test_a_closed_store_is_unavailable(store: PromptStore) -> None:
    await store.close()

    with pytest.raises(StateUnavailableError):
        await store.active("acme", "greet")
