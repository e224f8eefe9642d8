"""Every attack through every endpoint and every field that takes a user's text, streamed or not, with tools or
without."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import router
from router.app import App
from router.app_factory import ENDPOINTS, build_app
from router.config.answer_cache import AnswerCacheConfig
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.routes.route import Route
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_source import ConfiguredPolicies
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, Served
from tests.safety.scripted_classifier import ScriptedClassifier

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, FEEDBACK, COLLECTIONS = "/v1/embeddings", "/v1/cache/feedback", "/v1/collections"
DOCUMENTS, SEARCH = "/v1/collections/town/documents", "/v1/collections/town/search"
ELSEWHERE = {"/v1/moderations": "it answers with the scores of the text (test_moderations.py)"}
"""Endpoints that take text and are not in the list, and why."""
ENTRY = f"{'0' * 64}-{'0' * 12}"
ATTACKS = ("ATTACK the system", "please\nHARM them", "fine words first, then ATTACK", "𝔸 HARM 🎉")
STRICT = {"deadline_s": 0.3, "refusal": "Acme says no.", "retrieval": {"content": True, "injection": True}}
PASSED = ("collection_exists", "cache_entry_not_found")
"""What requests may end with that the guard has let pass."""
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
        "document of the request": (CHAT, chat(hi, documents=[{"text": attack}]), "documents[0]"),
        "title of a document": (CHAT, chat(hi, documents=[{"text": "x", "title": attack}]), "documents[0].title"),
        "text to embed": (EMBEDDINGS, {"model": "fake", "input": attack}, "input"),
        "one of several texts to embed": (EMBEDDINGS, {"model": "fake", "input": ["Hi", attack]}, "input[1]"),
        "description of a collection": (COLLECTIONS, {"name": "new", "description": attack}, "description"),
        "metadata of a collection": (COLLECTIONS, {"name": "new", "metadata": {"note": attack}}, "metadata"),
        "document to store": (DOCUMENTS, {"documents": [{"text": attack}]}, "documents[0].text"),
        "title of a document to store": (
            DOCUMENTS,
            {"documents": [{"text": "x"}, {"text": "y", "title": attack}]},
            "documents[1].title",
        ),
        "metadata of a document to store": (
            DOCUMENTS,
            {"documents": [{"text": "x", "metadata": {"note": attack}}]},
            "documents[0].metadata",
        ),
        "query": (SEARCH, {"query": attack}, "query"),
        "question of a stored answer": (FEEDBACK, {"entry": ENTRY, "question": attack}, "question"),
    }


def sent(path: str, body: dict[str, Any], stream: bool) -> dict[str, Any]:
    return {**body, "stream": stream} if path in ENDPOINTS else body


SYSTEM = {role: chat({"role": role, "content": "HARM"}, user("Hi")) for role in ("system", "developer")}
FORMS = tuple(requests(""))
CASES = [
    pytest.param(form, stream, id=f"{form}-{'stream' if stream else 'whole'}")
    for form, (path, _, _) in requests("").items()
    for stream in ((False, True) if path in ENDPOINTS else (False,))
]


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
        tenants={"acme": PolicyConfig.model_validate(STRICT)},
    )
    config = CONFIG.model_copy(update={"cache": AnswerCacheConfig(enabled=True)})
    guard = PolicyGuard(ConfiguredPolicies(policies), Parts(classifier))
    served = Served(config, store, guard, embedder=FakeEmbedder())
    served.http.post(COLLECTIONS, json={"name": "town"})
    yield served
    served.stop()


@pytest.fixture
def guarded(_guarded: Served, classifier: ScriptedClassifier) -> Served:
    _guarded.backend = ScriptedBackend()
    classifier.mode = "well"
    return _guarded


def named_paths() -> set[str]:
    """The paths below /v1 that the router's source names: as strings, and in the tables at the top of its files."""
    sources = [path.read_text(encoding="utf-8") for path in Path(router.__path__[0]).rglob("*.py")]
    found = {path for source in sources for path in re.findall(r"(?<![\w/])/v1/[\w/{}-]*[\w}]", source)}
    return {path.replace("{name}", "town").replace("{id}", "x").replace("{path}", "x") for path in found}


def takes_text(routes: Sequence[Route], path: str) -> bool:
    """Whether a request to ``path`` may have a body."""
    methods = next((found for route in routes if (found := route.methods(path)) is not None), ())
    return bool({"POST", "PUT", "PATCH"} & set(methods))


def test_every_endpoint_that_takes_text_is_in_the_list() -> None:
    app = build_app(CONFIG, ScriptedBackend())
    assert isinstance(app, App)
    taken = {path for path in named_paths() if takes_text(app.routes, path)}

    assert taken == {path for path, _, _ in requests("").values()} | set(ELSEWHERE)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(("form", "stream"), CASES)
def test_an_attack_reaches_no_engine(guarded: Served, form: str, attack: str, stream: bool) -> None:
    path, body, field = requests(attack)[form]
    answer = guarded.http.post(path, json=sent(path, body, stream))

    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["message"]) == ("content_filter", field, "Acme says no.")
    assert answer.headers["x-manta-safety"] == "blocked"
    assert answer.headers["x-should-retry"] == "false"
    assert not guarded.backend.requests


@pytest.mark.parametrize(("form", "stream"), CASES)
def test_the_same_request_without_an_attack_is_answered(guarded: Served, form: str, stream: bool) -> None:
    path, body, _ = requests("a kind word")[form]
    answer = guarded.http.post(path, json=sent(path, body, stream))

    assert answer.status_code == 200 or answer.json()["error"]["code"] in PASSED, answer.text
    if path in (*ENDPOINTS, EMBEDDINGS):
        assert answer.headers["x-manta-safety"] == "allowed"
    assert bool(guarded.backend.requests) is (path in ENDPOINTS)


@pytest.mark.parametrize("role", SYSTEM)
def test_harm_in_the_operators_words_is_blocked_too(guarded: Served, role: str) -> None:
    assert guarded.http.post(CHAT, json=SYSTEM[role]).json()["error"]["param"] == "messages[0].content"
