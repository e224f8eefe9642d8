"""Conversations of three times the context of a real engine, whose tokenizer the router does not know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from router.config.keys import KeyConfig
from router.config.prompts import OverflowConfig, PromptsConfig
from router.config.router import RouterConfig
from tests.router.engines import EngineBackend
from tests.router.served import KEY, Served

POLICIES = ("trim", "compress", "retrieve")
CONFIG = RouterConfig(
    keys=(
        KeyConfig(key=KEY, tenant="plain", team="x"),
        *(KeyConfig(key=f"sk-{policy}", tenant=policy, team="x") for policy in POLICIES),
    ),
    prompts=PromptsConfig(tenants={policy: OverflowConfig(policies=(policy,)) for policy in POLICIES}),
)
CONTEXT = 1_024  # of the model


@pytest.fixture  # one for each test: a router learns from answers how many tokens a character takes
def service(backend: EngineBackend) -> Iterator[Served]:
    made = Served(CONFIG)
    made.backend = backend  # type: ignore[assignment]
    yield made
    made.stop()


def conversation(word: str) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": "Answer briefly."}]
    for n in range(40):
        messages.append({"role": "user", "content": f"The phone of person {n} is 555-{1000 + n}. " + f"{word} " * 20})
        messages.append({"role": "assistant", "content": "Noted."})
    return [*messages, {"role": "user", "content": "Tell me the phone of person 7."}]


@pytest.mark.parametrize("word", ["harbour", "Ωμέγα", "🎉🎈"])
@pytest.mark.parametrize("policy", POLICIES)
def test_an_answer_comes_whatever_the_text_takes_in_tokens(service: Served, policy: str, word: str) -> None:
    body = {"model": "fast", "messages": conversation(word), "max_tokens": 8}

    refused = service.http.post("/v1/chat/completions", json=body)
    answer = service.http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer sk-{policy}"})

    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-manta-context"].startswith(policy)
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] <= CONTEXT - 8
    details = usage["prompt_details"]
    assert details["dropped"]["messages"] + details["compressed"]["messages"] > 0
