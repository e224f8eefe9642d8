"""The parts of a prompt that do not change come first, so that the engine's prefix cache holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from router.config.keys import KeyConfig, Role
from router.config.router import RouterConfig
from tests.router.engines import EngineBackend
from tests.router.served import KEY, OTHER_KEY, Served

ADMIN = "sk-admin"
CONFIG = RouterConfig(
    keys=(
        KeyConfig(key=KEY, tenant="acme", team="core"),
        KeyConfig(key=OTHER_KEY, tenant="other", team="x"),
        KeyConfig(key=ADMIN, tenant="admin", team="core", role=Role.ADMIN),
    )
)
TEMPLATE = {
    "messages": [{"role": "system", "content": "You help the customers of {{ company }}. " + "Be brief and kind. " * 8}]
}
TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "Finds an invoice by its number.", "parameters": {"type": "object"}},
}


@pytest.fixture(scope="module")
def service(backend: EngineBackend) -> Iterator[Served]:
    made = Served(CONFIG)
    made.backend = backend  # type: ignore[assignment]
    for tenant in ("acme", "other"):
        path = f"/admin/v1/prompts/{tenant}/help/versions?activate=true"
        made.http.post(path, json=TEMPLATE, headers={"authorization": f"Bearer {ADMIN}"}).raise_for_status()
    yield made
    made.stop()


def cached(service: Served, question: str, key: str = KEY, **fields: Any) -> tuple[int, int]:
    """The tokens of the prompt that the engine found in its cache, by its own count, and all tokens of the prompt."""
    prompt = {"id": "help", "variables": {"company": "Acme"}}
    body = {"model": "fast", "max_tokens": 2, "prompt": prompt, "tools": [TOOL], "tool_choice": "none"} | fields
    body.setdefault("messages", [{"role": "user", "content": question}])
    answer = service.http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def test_template_and_tools_of_two_requests_of_a_tenant_are_a_prefix_hit(service: Served) -> None:
    first, _ = cached(service, "What is the sum?")

    again, tokens = cached(service, "Where is my parcel now?")

    assert first == 0
    assert again >= 0.7 * tokens


def test_another_tenants_prefix_is_its_own(service: Served) -> None:
    cached(service, "What is the sum?")

    assert cached(service, "What is the sum?", OTHER_KEY)[0] == 0


def test_the_next_turn_of_a_conversation_hits_the_turns_before(service: Served) -> None:
    turns = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Good day. " * 20}]
    cached(service, "", messages=[*turns, {"role": "user", "content": "One."}])

    hit, tokens = cached(service, "", messages=[*turns, {"role": "user", "content": "Another question."}])

    assert hit >= 0.8 * tokens
