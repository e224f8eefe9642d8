"""The canary tokens of all routers of a deployment are the same, those of two tenants differ, and no client can know
them."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.safety.canary_key import CanaryKey
from engine.api import Conversation
from router.app_factory import build_app
from router.config.keys import KeyConfig
from router.config.review import ReviewConfig
from router.config.router import RouterConfig
from router.memory_entry_store import MemoryEntryStore
from router.memory_safety_store import MemorySafetyStore
from router.ports.state_store import StateUnavailableError
from router.review.review_keys import derived
from router.review.review_wiring import ReviewService
from router.router_ports import CacheParts, RouterPorts
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.backend import ScriptedBackend
from tests.router.cached import CHAT
from tests.router.policies import Policies
from tests.safety.scripted_classifier import ScriptedClassifier
from tests.state.clock import VirtualClock

SYSTEM = "Be kind."


class LateStore(MemorySafetyStore):
    """Does not answer while ``down``."""

    down = True

    async def secret(self, proposed: bytes) -> bytes:
        if self.down:
            raise StateUnavailableError("down")
        return await super().secret(proposed)


class CanaryRouter:
    """A router whose tenants' policies put canary tokens into system prompts."""

    def __init__(self, entries: MemoryEntryStore, safety: MemorySafetyStore, clock: VirtualClock) -> None:
        self.backend = ScriptedBackend()
        policies = Policies()
        for tenant in ("acme", "other"):
            policies.set(tenant, prompt_canary="block", content_answers=None)
        users = (("sk-user", "acme"), ("sk-other", "other"))
        keys = tuple(KeyConfig(key=key, tenant=tenant, team="core") for key, tenant in users)
        config = RouterConfig.model_validate({"keys": keys, "cache": {"enabled": True}})
        self.reviews = ReviewService(safety, config.review, clock)
        guard = PolicyGuard(policies, Parts(ScriptedClassifier(), canary_key=CanaryKey(self.reviews.keys)))
        self.app = build_app(
            config,
            self.backend,
            RouterPorts(
                clock=clock,
                make_guard=lambda oversight, store: guard,
                reviews=self.reviews,
                cache=CacheParts(entries),
            ),
        )

    async def ask(self, key: str = "sk-user", text: str = "Hi") -> httpx.Response:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        transport, headers = httpx.ASGITransport(self.app), {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            answer = await http.post(CHAT, json={"model": "fast", "temperature": 0, "messages": messages})
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(0.01)  # what is stored beside the request
        return answer

    @property
    def token(self) -> str:
        """The token in the prompt that the model was given last."""
        prompt = self.backend.requests[-1].prompt
        assert isinstance(prompt, Conversation)
        assert prompt.messages[0].content.startswith(SYSTEM)
        return prompt.messages[0].content.split()[-1]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def routers(safety: MemorySafetyStore, clock: VirtualClock) -> tuple[CanaryRouter, CanaryRouter]:
    entries = MemoryEntryStore(clock)
    made = CanaryRouter(entries, safety, clock), CanaryRouter(entries, safety, clock)
    for each in made:
        await each.reviews.start()
    return made


async def test_routers_share_answers_of_prompts_with_a_canary(clock: VirtualClock) -> None:
    one, other = await routers(MemorySafetyStore(clock), clock)

    first, second = await one.ask(), await other.ask()

    assert first.headers["x-manta-cache"] == "miss; new"
    assert second.headers["x-manta-cache"].startswith("exact")
    assert other.backend.requests == []


async def test_the_token_is_one_of_the_deployment_for_each_tenant(clock: VirtualClock) -> None:
    one, other = await routers(MemorySafetyStore(clock), clock)
    tokens: list[str] = []
    for router, key in itertools.product((one, other), ("sk-user", "sk-other")):
        await router.ask(key, text=f"{len(tokens)}")
        tokens.append(router.token)

    assert tokens[:2] == tokens[2:]
    assert len(set(tokens)) == 2
    elsewhere, _ = await routers(MemorySafetyStore(clock), clock)
    await elsewhere.ask()
    assert elsewhere.token not in tokens


async def test_without_the_shared_secret_a_router_has_a_key_of_its_own_until_it_comes(clock: VirtualClock) -> None:
    safety = LateStore(clock)
    one, other = await routers(safety, clock)
    await one.ask(text="1")
    await one.ask(text="2")
    await other.ask(text="3")
    own, others = one.token, other.token
    assert own != others

    safety.down = False
    await one.ask(text="4")  # fetches it in the background
    await other.ask(text="5")
    await one.ask(text="6")
    await other.ask(text="7")

    assert one.token == other.token
    assert one.token not in (own, others)


async def test_a_secret_of_the_configuration_needs_no_store(clock: VirtualClock, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s" * 32)
    config = ReviewConfig(secret_file=tmp_path / "secret")
    keys = {CanaryKey(ReviewService(LateStore(clock), config, clock).keys)() for _ in range(2)}

    assert keys == {derived(b"s" * 32).canaries}


def test_the_keys_of_a_secret_differ() -> None:
    keys = derived(b"secret")
    assert len({keys.fingerprints, keys.texts, keys.canaries}) == 3


async def test_an_answer_is_searched_for_the_token_of_its_prompt_though_the_key_has_changed(
    clock: VirtualClock,
) -> None:
    safety = LateStore(clock)
    router, _ = await routers(safety, clock)

    def words(request: Any) -> list[str]:
        safety.down = False  # while it is generated, the router comes to know the secret
        router.reviews.keys.at_once()
        return ["It is ", request.prompt.messages[0].content.split()[-1]]

    router.backend._words = words  # type: ignore[method-assign]
    answer = await router.ask()

    assert json.loads(answer.text)["choices"][0]["finish_reason"] == "content_filter"
