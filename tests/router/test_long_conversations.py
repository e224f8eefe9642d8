"""Conversations of three times the context, through HTTP: each policy gives an answer that says what was left out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

import httpx
import pytest

from engine.api import ContextLengthError, Conversation, Delta, GenerationRequest, Message
from router.ports.tier_backend import OnPlaced, OnUsage, TierSnapshot
from router.prompts.prompt_size import prompt_characters
from tests.access.service import ADMIN, Service, config
from tests.router.backend import ScriptedBackend

CONTEXT = {"fast": 400, "balanced": 400, "frontier": 8_000}
TURNS = 12


class CountingBackend(ScriptedBackend):
    """Refuses prompts that are too long for the tier, as an engine does. ``tokens_per_character`` is the truth that the
    router has to guess."""

    tokens_per_character = 0.25

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [TierSnapshot(name, frozenset({name}), CONTEXT[name]) for name in self.names]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        tokens = prompt_characters(request.prompt) * self.tokens_per_character + (request.sampling.max_tokens or 1)
        if tokens > CONTEXT[tier]:
            self.requests.append(request)
            raise ContextLengthError("too long", "messages", "context_length_exceeded")
        async for deltas in super().generate(tier, request, avoid, on_usage, account, on_placed):
            yield deltas


def service(*policies: str, tokens_per_character: float = 0.25, **overflow: Any) -> Service:
    backend = CountingBackend()
    backend.tokens_per_character = tokens_per_character
    return Service(config(prompts={"overflow": {"policies": policies, **overflow}}), backend=backend)


def conversation(turns: int = TURNS) -> list[dict[str, Any]]:
    """A conversation of about three times the context of ``fast``."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You are a clerk."}]
    for n in range(turns):
        call = {"id": f"c{n}", "type": "function", "function": {"name": "find", "arguments": f'{{"n": {n}}}'}}
        messages += [
            {"role": "user", "content": f"Look up invoice number {n}. " + "Take your time with it. " * 5},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{n}", "content": f"Invoice {n} is {n}00 francs. " + "It is paid. " * 8},
            {"role": "assistant", "content": f"It is {n}00 francs."},
        ]
    return [*messages, {"role": "user", "content": "What was the sum of invoice number 3?"}]


async def ask(service: Service, messages: list[dict[str, Any]], **fields: Any) -> httpx.Response:
    async with service.client("sk-user") as http:
        body = {"model": "fast", "messages": messages, "max_tokens": 40} | fields
        return await http.post("/v1/chat/completions", json=body)


def sent(service: Service, at: int = -1) -> list[Message]:
    backend = service.backend
    assert isinstance(backend, ScriptedBackend)
    prompt = backend.requests[at].prompt
    assert isinstance(prompt, Conversation)
    return list(prompt.messages)


def test_the_conversation_has_three_times_the_context() -> None:
    size = sum(len(str(message)) for message in conversation()) * CountingBackend.tokens_per_character

    assert size > 3 * CONTEXT["fast"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policy", ["trim", "compress", "retrieve"])
async def test_each_policy_answers_and_says_what_it_left_out(policy: str, stream: bool) -> None:
    made = service(policy)
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}

    answer = await ask(made, conversation(), **options)

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-manta-context"].startswith(f"{policy}; dropped=")
    assert f'"policy": "{policy}"' in answer.text
    messages = sent(made)
    assert messages[0].content == "You are a clerk."
    assert messages[-1].content.endswith("What was the sum of invoice number 3?")
    calls = {call.id for message in messages for call in message.tool_calls}
    assert {message.tool_call_id for message in messages if message.role == "tool"} == calls
    if policy != "trim":
        assert "300 francs" in "".join(message.content for message in messages)


async def test_the_usage_counts_what_was_dropped() -> None:
    made = service("trim")

    usage = (await ask(made, conversation())).json()["usage"]["prompt_details"]

    assert usage["dropped"]["messages"] == len(conversation()) - len(sent(made))
    assert usage["dropped"]["tokens"] > 0
    assert [part["part"] for part in usage["parts"]] == ["system", "conversation", "last_turn"]


async def test_a_larger_tier_takes_the_conversation_whole_if_the_key_may_use_it() -> None:
    made = service("larger_tier")
    restricted = await made.create(tiers=["fast", "balanced"])

    answer = await ask(made, conversation())
    async with made.client(restricted["key"]) as http:
        refused = await http.post("/v1/chat/completions", json={"model": "fast", "messages": conversation()})

    assert (answer.status_code, answer.headers["x-manta-tier"]) == (200, "frontier")
    assert answer.headers["x-manta-context"].startswith("larger_tier; from=fast; before=")
    assert "context of fast too small" in answer.headers["x-manta-route-reason"]
    assert len(sent(made, 0)) == len(conversation())
    assert refused.status_code == 400


@pytest.mark.parametrize("fields", [{}, {"truncation": "disabled"}])
async def test_refusal_is_clear(fields: dict[str, Any]) -> None:
    made = service(*(() if not fields else ("trim",)))

    answer = await ask(made, conversation(), **fields)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "x-manta-context" not in answer.headers


async def test_a_client_may_ask_for_truncation() -> None:
    answer = await ask(service(), conversation(), truncation="auto")

    assert answer.status_code == 200
    assert answer.headers["x-manta-context"].startswith("trim;")


async def test_a_conversation_that_fits_is_sent_whole_and_without_a_header() -> None:
    made = service("trim")

    answer = await ask(made, conversation(2))

    assert "x-manta-context" not in answer.headers
    assert "prompt_details" not in answer.json()["usage"]
    assert len(sent(made)) == len(conversation(2))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("truth", [1.0, 2.0])
async def test_a_wrong_estimate_still_ends_in_an_answer(truth: float, stream: bool) -> None:
    """Texts of many tokens per character, such as emoji: the engine refuses, and the router shortens further."""
    made = service("trim", tokens_per_character=truth)

    answer = await ask(made, conversation(), stream=stream)

    assert answer.status_code == 200, answer.text
    backend = made.backend
    assert isinstance(backend, ScriptedBackend)
    assert len(backend.requests) > 1
    kept = len(sent(made))
    assert answer.headers["x-manta-context"].startswith(f"trim; dropped={len(conversation()) - kept};")


async def test_what_cannot_be_shortened_is_refused_by_the_engine() -> None:
    answer = await ask(service("trim", "compress"), [{"role": "user", "content": "word" * 2_000}])

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_bound_on_cost_shortens_what_would_fit() -> None:
    made = service("trim", max_prompt_tokens=150)

    answer = await ask(made, conversation(), model="frontier")

    assert answer.headers["x-manta-context"].startswith("trim;")
    assert prompt_characters(Conversation(tuple(sent(made)))) * 0.25 <= 150


async def test_the_template_stays_whatever_is_trimmed() -> None:
    made = service("trim")
    template = {"messages": [{"role": "user", "content": "An example."}, {"role": "assistant", "content": "Seen."}]}
    async with made.client(ADMIN) as http:
        await http.post("/admin/v1/prompts/acme/shots/versions?activate=true", json=template)

    answer = await ask(made, conversation(), prompt={"id": "shots"})

    assert answer.status_code == 200, answer.text
    assert [message.content for message in sent(made)[:3]] == ["An example.", "Seen.", "You are a clerk."]
