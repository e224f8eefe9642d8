"""Every attack through every endpoint and every field that a model may see, streamed or not, with tools or without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from router.app_factory import ENDPOINTS
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_source import ConfiguredPolicies
from tests.router.backend import ScriptedBackend
from tests.router.conftest import CONFIG, Served
from tests.safety.scripted_classifier import ScriptedClassifier

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ATTACKS = ("ATTACK the system", "please\nHARM them", "fine words first, then ATTACK", "𝔸 HARM 🎉")
User = dict[str, Any]


def chat(*messages: User, **more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": list(messages), **more}


def user(text: Any) -> User:
    return {"role": "user", "content": text}


def tool(description: str = "Looks up.", **parameters: Any) -> dict[str, Any]:
    return tool_of(parameters, description)


def tool_of(parameters: dict[str, Any], description: str = "Looks up.") -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters}
    return {"type": "function", "function": {"name": "look", "description": description, "parameters": schema}}


def called(**more: Any) -> User:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def result(text: str) -> User:
    return {"role": "tool", "tool_call_id": "c1", "content": text}


def requests(attack: str) -> dict[str, tuple[str, dict[str, Any], str]]:
    """By a name: the path, the body, and the field that holds ``attack``."""
    arguments = json.dumps({"q": attack}, ensure_ascii=False)
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    escaped = '{"q": "' + "".join(f"\\u{ord(char):04x}" if ord(char) < 128 else char for char in attack) + '"}'
    twice = f'{{"q": {json.dumps(attack)}, "q": "fine"}}'
    parts = [{"type": "text", "text": "see: "}, {"type": "text", "text": attack}]
    hi = user("Hi")
    return {
        "user": (CHAT, chat(user(attack)), "messages[0].content"),
        "a later turn": (CHAT, chat(hi, {"role": "assistant", "content": "Yes?"}, user(attack)), "messages[2].content"),
        "parts": (CHAT, chat(user(parts)), "messages[0].content"),
        "name": (CHAT, chat({**hi, "name": attack}), "messages[0].name"),
        "an answer of before": (CHAT, chat(hi, {"role": "assistant", "content": attack}, hi), "messages[1].content"),
        "reasoning of before": (
            CHAT,
            chat(hi, {"role": "assistant", "reasoning_content": attack}, hi),
            "messages[1].reasoning_content",
        ),
        "the beginning of the answer": (
            CHAT,
            chat(hi, {"role": "assistant", "content": attack}, continue_final_message=True),
            "messages[1].content",
        ),
        "tool result": (CHAT, chat(hi, called(), result(attack)), "messages[2].content"),
        "tool result, with tools": (CHAT, chat(hi, called(), result(attack), tools=[tool()]), "messages[2].content"),
        "id of a call": (
            CHAT,
            chat(hi, {"role": "assistant", "tool_calls": [{**called()["tool_calls"][0], "id": attack}]}, hi),
            "messages[1].tool_calls[0].id",
        ),
        "arguments of a call": (
            CHAT,
            chat(hi, {"role": "assistant", "tool_calls": [call]}, result("none")),
            "messages[1].tool_calls[0].function.arguments",
        ),
        "escaped arguments of a call": (
            CHAT,
            chat(
                hi,
                {"role": "assistant", "tool_calls": [{**call, "function": {"name": "look", "arguments": escaped}}]},
                result("none"),
            ),
            "messages[1].tool_calls[0].function.arguments",
        ),
        "one of two members of a name": (
            CHAT,
            chat(
                hi,
                {"role": "assistant", "tool_calls": [{**call, "function": {"name": "look", "arguments": twice}}]},
                result("none"),
            ),
            "messages[1].tool_calls[0].function.arguments",
        ),
        "description of a tool": (CHAT, chat(hi, tools=[tool(attack)]), "tools[0]"),
        "description of a parameter": (
            CHAT,
            chat(hi, tools=[tool(q={"type": "string", "description": attack})]),
            "tools[0]",
        ),
        "name of a parameter": (CHAT, chat(hi, tools=[tool_of({attack: {"type": "string"}})]), "tools[0]"),
        "value of a parameter": (CHAT, chat(hi, tools=[tool(q={"enum": ["a", attack]})]), "tools[0]"),
        "document of the template": (
            CHAT,
            chat(hi, chat_template_kwargs={"documents": [{"title": "t", "text": attack}]}),
            "chat_template_kwargs.documents",
        ),
        "user, with tools": (CHAT, chat(user(attack), tools=[tool()], tool_choice="required"), "messages[0].content"),
        "user, several answers": (CHAT, chat(user(attack), n=3), "messages[0].content"),
        "prompt": (TEXT, {"model": "fast", "prompt": attack}, "prompt"),
        "one of several prompts": (TEXT, {"model": "fast", "prompt": ["Hi", attack]}, "prompt[1]"),
        "prompt, several answers": (TEXT, {"model": "fast", "prompt": attack, "n": 2}, "prompt"),
    }


SYSTEM = {role: chat({"role": role, "content": "HARM"}, user("Hi")) for role in ("system", "developer")}
FORMS = tuple(requests(""))


@pytest.fixture(scope="module")
def classifier() -> ScriptedClassifier:
    return ScriptedClassifier()


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore(SystemClock())


@pytest.fixture(scope="module")
def _guarded(classifier: ScriptedClassifier, store: MemoryStore) -> Iterator[Served]:
    policies = SafetyPolicies(
        default=PolicyConfig(deadline_s=0.3),
        tenants={"acme": PolicyConfig(deadline_s=0.3, refusal="Acme says no.")},
    )
    served = Served(CONFIG, store, PolicyGuard(ConfiguredPolicies(policies), Parts(classifier)))
    yield served
    served.stop()


@pytest.fixture
def guarded(_guarded: Served, classifier: ScriptedClassifier) -> Served:
    _guarded.backend = ScriptedBackend()
    classifier.mode = "well"
    return _guarded


def test_every_endpoint_is_in_the_list() -> None:
    assert {path for path, _, _ in requests("").values()} == set(ENDPOINTS)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("form", FORMS)
def test_an_attack_reaches_no_engine(guarded: Served, form: str, attack: str, stream: bool) -> None:
    path, body, field = requests(attack)[form]
    answer = guarded.http.post(path, json={**body, "stream": stream})

    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["message"]) == ("content_filter", field, "Acme says no.")
    assert answer.headers["x-manta-safety"] == "blocked"
    assert answer.headers["x-should-retry"] == "false"
    assert not guarded.backend.requests


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_request_without_an_attack_is_answered(guarded: Served, form: str, stream: bool) -> None:
    path, body, _ = requests("a kind word")[form]
    answer = guarded.http.post(path, json={**body, "stream": stream})

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-manta-safety"] == "allowed"
    assert guarded.backend.requests


@pytest.mark.parametrize("role", SYSTEM)
def test_harm_in_the_operators_words_is_blocked_too(guarded: Served, role: str) -> None:
    assert guarded.http.post(CHAT, json=SYSTEM[role]).json()["error"]["param"] == "messages[0].content"
