"""Stored prompts through the admin API and in requests: versions, activation, variables, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from engine.api import Conversation
from safety.policy import PolicyConfig
from tests.access.service import ADMIN, Service
from tests.router.backend import ScriptedBackend

PATH = "/admin/v1/prompts/acme/greet"
FIRST = {
    "messages": [
        {"role": "system", "content": "You help {{ company }}.{% if tone %} Be {{ tone }}.{% endif %}"},
        {"role": "user", "content": "Items:{% for item in items %} {{ loop.index }}. {{ item.name }}{% endfor %}"},
    ],
    "defaults": {"tone": "kind", "items": []},
    "description": "greets",
}
SECOND = {"messages": [{"role": "system", "content": "Second for {{ company }}."}]}


@pytest.fixture
def service() -> Service:
    return Service()


async def manage(service: Service, method: str, path: str = PATH, body: Any = None, key: str = ADMIN) -> httpx.Response:
    async with service.client(key) as http:
        return await http.request(method, path, json=body)


async def put(
    service: Service, document: Any = FIRST, path: str = PATH, query: str = "?activate=true"
) -> httpx.Response:
    return await manage(service, "POST", f"{path}/versions{query}", document)


async def ask(service: Service, prompt: Any, key: str = "sk-user", **fields: Any) -> httpx.Response:
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "prompt": prompt} | fields
    async with service.client(key) as http:
        return await http.post("/v1/chat/completions", json={name: each for name, each in body.items() if each != ...})


def sent(service: Service) -> list[tuple[str, str]]:
    """The messages that the backend got last."""
    backend = service.backend
    assert isinstance(backend, ScriptedBackend)
    prompt = backend.requests[-1].prompt
    assert isinstance(prompt, Conversation)
    return [(message.role, message.content) for message in prompt.messages]


async def test_a_template_gives_messages_before_the_clients_own(service: Service) -> None:
    await put(service)

    variables = {"company": "Acme", "items": [{"name": "a {{ 1 }}"}, {"name": "b"}]}
    answer = await ask(service, {"id": "greet", "variables": variables})

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-manta-prompt"] == "greet@1"
    assert sent(service) == [
        ("system", "You help Acme. Be kind."),
        ("user", "Items: 1. a {{ 1 }} 2. b"),
        ("user", "Hi"),
    ]
    details = answer.json()["usage"]["prompt_details"]
    assert details["template"] == "greet@1"
    assert [(part["part"], part["messages"]) for part in details["parts"]] == [("template", 2), ("last_turn", 1)]
    assert "assembly" not in details


async def test_messages_may_be_left_out_beside_a_prompt(service: Service) -> None:
    await put(service)

    answer = await ask(service, {"id": "greet", "version": "1", "variables": {"company": "Acme"}}, messages=...)

    assert answer.status_code == 200, answer.text
    assert len(sent(service)) == 2


async def test_the_assembly_is_shown_on_request_as_the_model_gets_it(service: Service) -> None:
    await put(service, SECOND)

    answer = await ask(service, {"id": "greet", "variables": {"company": "Acme"}}, include_assembly=True)
    plain = await ask(service, None, include_assembly=True)

    assert answer.json()["usage"]["prompt_details"]["assembly"] == [
        {"role": "system", "content": "Second for Acme."},
        {"role": "user", "content": "Hi"},
    ]
    assert plain.json()["usage"]["prompt_details"]["assembly"] == [{"role": "user", "content": "Hi"}]


async def test_a_stream_tells_the_details_with_its_usage(service: Service) -> None:
    await put(service, SECOND)

    prompt = {"id": "greet", "variables": {"company": "Acme"}}
    answer = await ask(service, prompt, stream=True, stream_options={"include_usage": True})
    refused = await ask(service, prompt, stream=True, include_assembly=True)

    assert '"template": "greet@1"' in answer.text
    assert answer.headers["x-manta-prompt"] == "greet@1"
    assert refused.json()["error"]["param"] == "include_assembly"


async def test_versions_are_activated_and_rolled_back(service: Service) -> None:
    await put(service, query="")
    prompt = {"id": "greet", "variables": {"company": "Acme"}}
    assert (await ask(service, prompt)).status_code == 404
    await put(service, SECOND, query="")
    for version in (1, 2):
        made = await manage(service, "POST", f"{PATH}/activate", {"version": version, "author": "ann"})
        assert (made.json()["version"], made.json()["kind"]) == (version, "activate")
        assert made.json()["author"].endswith("/ann")
        assert (await ask(service, prompt)).headers["x-manta-prompt"] == f"greet@{version}"

    back = await manage(service, "POST", f"{PATH}/rollback")

    assert (back.json()["version"], back.json()["kind"]) == (1, "rollback")
    assert (await ask(service, prompt)).headers["x-manta-prompt"] == "greet@1"
    again = await manage(service, "POST", f"{PATH}/rollback")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "no_previous_version")
    shown = (await manage(service, "GET")).json()
    assert [each["kind"] for each in shown["activations"]] == ["activate", "activate", "rollback"]
    assert [(each["version"], each["active"]) for each in shown["versions"]] == [(1, True), (2, False)]
    listed = (await manage(service, "GET", "/admin/v1/prompts?tenant=acme")).json()["data"]
    assert listed == [{"object": "prompt", "tenant": "acme", "id": "greet", "active": 1, "latest": 2}]
    assert (await ask(service, prompt | {"version": 2})).headers["x-manta-prompt"] == "greet@2"


async def test_a_change_is_in_the_audit_log_with_who_made_it(service: Service) -> None:
    await put(service, query="?activate=true&author=bob")

    records = (await manage(service, "GET", "/admin/v1/audit")).json()["data"]

    changes = [(each["outcome"], each["version"], each["reviewer"].partition("/")[2]) for each in records]
    assert changes == [("stored", "greet@1", "bob"), ("activated", "greet@1", "bob")]


async def test_another_tenants_prompt_does_not_exist(service: Service) -> None:
    await put(service, SECOND)

    answer = await ask(service, {"id": "greet", "variables": {"company": "x"}}, key="sk-other")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "prompt_not_found")


@pytest.mark.parametrize(
    ("prompt", "status", "code", "param"),
    [
        ({"id": "none"}, 404, "prompt_not_found", "prompt.id"),
        ({"id": "../x"}, 404, "prompt_not_found", "prompt.id"),
        ({"id": "greet", "version": 9}, 404, "prompt_version_not_found", "prompt.version"),
        ({"id": "greet"}, 400, "missing_prompt_variable", "prompt.variables.company"),
        ({"id": "greet", "variables": {"company": "a", "x": 1}}, 400, "unknown_prompt_variable", "prompt.variables.x"),
        (
            {"id": "greet", "variables": {"company": "a", "items": [{}]}},
            400,
            "prompt_not_renderable",
            "prompt.variables",
        ),
        ({"id": "greet", "variables": {"company": "a", "items": 3}}, 400, "prompt_not_renderable", "prompt.variables"),
        ({"id": "greet", "version": 0}, 400, "invalid_value", "prompt.version"),
        ({"id": "greet", "other": 1}, 400, "unknown_parameter", "prompt.other"),
        ({}, 400, "missing_required_parameter", "prompt.id"),
        ("greet", 400, "invalid_value", "prompt"),
    ],
)
async def test_a_wrong_reference_is_refused_by_its_field(
    service: Service, prompt: Any, status: int, code: str, param: str
) -> None:
    await put(service)

    answer = await ask(service, prompt)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "{{ x"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "{% include 'x' %}"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x"}], "defaults": {"y": 1}}, "defaults.y"),
        ({"messages": [{"role": "user", "content": "x"}], "more": 1}, "more"),
        ([], None),
    ],
)
async def test_a_wrong_template_is_refused_by_its_field(service: Service, document: Any, field: str | None) -> None:
    answer = await put(service, document)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert (await manage(service, "GET")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", f"{PATH}/activate", {"version": 7}, 404),
        ("POST", f"{PATH}/activate", {}, 400),
        ("GET", f"{PATH}/versions/7", None, 404),
        ("POST", "/admin/v1/prompts/acme/none/rollback", {}, 404),
        ("POST", "/admin/v1/prompts/acme/-x/versions", FIRST, 400),
        ("POST", f"{PATH}/versions?wrong=1", FIRST, 400),
        ("POST", f"{PATH}/versions?author=a b", FIRST, 400),
        ("DELETE", PATH, None, 405),
        ("GET", f"{PATH}/versions", None, 405),
        ("GET", f"{PATH}/versions/1/2", None, 404),
    ],
)
async def test_a_wrong_call_is_refused(service: Service, method: str, path: str, body: Any, status: int) -> None:
    await put(service)

    assert (await manage(service, method, path, body)).status_code == status


async def test_only_administrators_see_and_change_prompts(service: Service) -> None:
    answers = [
        await manage(service, method, path, {}, "sk-user")
        for method, path in (("GET", PATH), ("POST", f"{PATH}/versions"))
    ]

    assert {answer.status_code for answer in answers} == {403}


async def test_a_rendering_is_shown_without_a_request(service: Service) -> None:
    await put(service, SECOND)

    shown = await manage(service, "POST", f"{PATH}/render", {"variables": {"company": "Acme"}})
    missing = await manage(service, "POST", f"{PATH}/render", {"version": 1})

    assert shown.json()["messages"] == [{"role": "system", "content": "Second for Acme."}]
    assert missing.json()["error"]["param"] == "variables.company"


async def test_the_ledger_names_the_version(service: Service) -> None:
    await put(service, SECOND)
    await ask(service, {"id": "greet", "variables": {"company": "Acme"}})

    (entry,) = service.store._entries.values()
    assert json.loads(entry.document)["template_version"] == "greet@1"


async def test_values_of_variables_are_inspected_as_the_users_words(guarded: Service) -> None:
    await put(guarded, SECOND)

    blocked = await ask(guarded, {"id": "greet", "variables": {"company": "a ravenholm plan"}})
    redacted = await ask(guarded, {"id": "greet", "variables": {"company": "ann@example.com"}})

    assert blocked.status_code == 400
    assert redacted.status_code == 200, redacted.text
    assert sent(guarded)[0] == ("system", "Second for <EMAIL_ADDRESS>.")


@pytest.fixture
def guarded() -> Service:
    """System messages are not checked there; what comes from variables is."""
    policy = {"unchecked": ["system"], "phrases": {"block": ["ravenholm"]}, "pii": {"requests": "redact"}}
    return Service(policy=PolicyConfig.model_validate(policy))
