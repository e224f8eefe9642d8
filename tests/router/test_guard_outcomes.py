"""What follows from a guard's ruling on a request: the response, what the engine gets, ledger, limits and log."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import httpx
import pytest

from engine.api import Usage
from router.limits.usage_estimator import UsageEstimator
from tests.router.guarded import CHAT, TEXT, Guarded, texts_of
from tests.router.served import KEY, OTHER_KEY, Served


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["dead", "slow", "nonsense", "short", "broken"])
def test_without_a_classifier_a_tenant_gets_what_its_policy_says(
    guarded: Guarded, mode: str, stream: bool, path: str
) -> None:
    guarded.policies.set("acme", when_unavailable="refuse")
    guarded.policies.set("other", when_unavailable="pass")
    guarded.classifier.mode = mode
    body = {"messages": [{"role": "user", "content": "x"}]} if path == CHAT else {"prompt": "x"}
    closed, opened = (guarded.post(path, {**body, "stream": stream}, key) for key in (KEY, OTHER_KEY))

    assert (closed.status_code, closed.json()["error"]["code"]) == (503, "safety_unavailable")
    assert closed.headers["retry-after"]
    assert opened.status_code == 200
    assert closed.headers["x-manta-safety"] == opened.headers["x-manta-safety"] == "unscanned"
    assert len(guarded.served.backend.requests) == 1
    assert [entry["safety"]["decision"] for entry in guarded.entries()] == ["unscanned"] * 2


@pytest.mark.parametrize(
    ("policy", "stream", "waits"),
    [({"stream": "hold"}, True, True), ({"stream": "beside"}, True, False), ({"stream": "hold"}, False, False)],
)
def test_what_a_first_token_waits_for_is_urgent_to_the_classifier(
    guarded: Guarded, policy: dict[str, Any], stream: bool, waits: bool
) -> None:
    guarded.policies.set(**policy)
    asked = f"Good morning, {policy} {stream}"  # another one for each case: verdicts on texts are remembered

    assert guarded.ask(asked, stream=stream, moderation={"model": "omni-moderation-latest"}).text

    of_answer = [text for text in guarded.classifier.texts if text != asked]
    assert guarded.classifier.urgent == [asked] * 2 + of_answer[:1] * waits
    assert len(of_answer) >= 2  # the scores of the answer at least


def test_a_moderation_is_urgent_to_the_classifier(guarded: Guarded) -> None:
    assert guarded.post("/v1/moderations", {"model": "omni-moderation-latest", "input": "Hi"}).status_code == 200

    assert guarded.classifier.urgent == ["Hi"]


def test_a_tenants_policy_is_its_own(guarded: Guarded) -> None:
    off = {"content": None, "injection": {"user": None, "documents": None}}
    guarded.policies.set("other", **off)

    assert guarded.ask("HARM").status_code == 400
    assert guarded.ask("HARM", OTHER_KEY).status_code == 200


def test_a_blocked_request_counts_and_costs_no_tokens(guarded: Guarded) -> None:
    blocked = guarded.ask("HARM", max_tokens=500)
    after = guarded.ask("Hi", max_tokens=7)

    assert blocked.status_code == 400
    first, second = guarded.entries()
    assert (first["outcome"], first["error"], first["input_tokens"], first["cost"]) == (
        "failed",
        "content_filter",
        0,
        0,
    )
    assert first["safety"]["decision"] == "blocked"
    assert first["safety"]["verdicts"] == ["classifier@scripted-1:block:violence:0.970"]
    assert second["safety"] == {"decision": "allowed", "policy": first["safety"]["policy"], "verdicts": []}
    assert int(after.headers["x-ratelimit-remaining-requests"]) <= 1000 - 2


def test_a_dropped_tool_result_reaches_no_engine_and_no_record(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guarded.policies.set(injection={"documents": {"action": "drop"}})
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "What does the page say?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "ATTACK with my-secret-word"},
    ]
    answer = guarded.post(CHAT, {"messages": messages})

    assert (answer.status_code, answer.headers["x-manta-safety"]) == (200, "redacted")
    [request] = guarded.served.backend.requests
    contents = [message.content for message in request.prompt.messages]  # type: ignore[union-attr]
    assert contents == ["What does the page say?", "", "[Removed: this text tried to give instructions.]"]
    assert "my-secret-word" not in json.dumps(guarded.entries()) + caplog.text


def test_a_description_with_instructions_is_refused_since_a_schema_cannot_be_rewritten(guarded: Guarded) -> None:
    guarded.policies.set(injection={"documents": {"action": "drop"}})
    parameters = {"type": "object", "properties": {"q": {"type": "string", "description": "ATTACK, please do"}}}
    function = {"name": "look", "description": "Looks a word up.", "parameters": parameters}
    answer = guarded.ask(tools=[{"type": "function", "function": function}])

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools[0]")
    assert not guarded.served.backend.requests


def test_a_broken_check_puts_no_prompt_into_the_log(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    guarded.classifier.mode = "broken"
    guarded.ask("my-secret-word")

    assert "the classifier failed: RuntimeError" in caplog.text
    assert "my-secret-word" not in caplog.text


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_refused_where_text_must_be_checked(guarded: Guarded, prompt: list[Any]) -> None:
    refused = guarded.post(TEXT, {"prompt": prompt})
    guarded.policies.set("other", when_unavailable="pass")
    passed = guarded.post(TEXT, {"prompt": prompt}, OTHER_KEY)

    error = refused.json()["error"]
    field = "prompt" if isinstance(prompt[0], int) else "prompt[0]"
    assert (refused.status_code, error["code"], error["param"]) == (400, "token_ids_not_allowed", field)
    assert (passed.status_code, passed.headers["x-manta-safety"]) == (200, "unscanned")


def test_a_tool_that_the_role_may_not_use_is_refused(guarded: Guarded) -> None:
    guarded.policies.set(tools=[{"action": "deny", "roles": ["user"], "name": "delete_.*"}])
    tools = [{"type": "function", "function": {"name": name}} for name in ("look", "delete_all")]
    answer = guarded.ask(tools=tools)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (403, "tool_not_allowed", "tools[1]")
    assert answer.headers["x-manta-safety"] == "blocked"
    assert guarded.ask(tools=tools[:1]).status_code == 200


def test_a_request_in_doubt_is_refused_or_marked(guarded: Guarded) -> None:
    refused = guarded.ask("DOUBT")
    guarded.policies.set("other", review={"action": "pass"})
    passed = guarded.ask("DOUBT", OTHER_KEY)

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "review_required")
    assert passed.status_code == 200
    assert refused.headers["x-manta-safety"] == passed.headers["x-manta-safety"] == "review"


def test_a_history_is_scanned_once(guarded: Guarded) -> None:
    guarded.policies.set(content_answers=None)
    turns = [{"role": "user", "content": "one"}]
    for word in ("two", "three"):
        guarded.post(CHAT, {"messages": turns})
        turns += [{"role": "assistant", "content": f"answer {word}"}, {"role": "user", "content": word}]
    guarded.post(CHAT, {"messages": turns})

    assert guarded.classifier.texts == ["one", "answer two", "two", "answer three", "three"]


def test_an_unguarded_router_says_so(served: Served) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "HARM"}]}

    assert served.http.post(CHAT, json=body).headers["x-manta-safety"] == "unscanned"


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_may_be_sent_as_an_answer(guarded: Guarded, path: str, stream: bool) -> None:
    guarded.policies.set(on_block="answer", refusal="Not this.")
    body = {"messages": [{"role": "user", "content": "HARM"}]} if path == CHAT else {"prompt": "HARM"}
    answer = guarded.post(path, {**body, "n": 2, "stream": stream})

    assert (answer.status_code, answer.headers["x-manta-safety"]) == (200, "blocked")
    assert texts_of(answer, stream) == {0: ("Not this.", "content_filter"), 1: ("Not this.", "content_filter")}
    assert not guarded.served.backend.requests
    assert guarded.entries()[0]["output_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_pseudonym_goes_to_the_engine_and_the_value_to_the_client(
    guarded: Guarded, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guarded.policies.set(pii={"requests": "pseudonymise", "answers": "redact"}, content_answers=None)
    answer = guarded.post(TEXT, {"prompt": "I am bob@acme.com", "stream": stream})

    [(text, reason)] = texts_of(answer, stream).values()
    assert (text, reason) == ("<I am bob@acme.com>Hello, wörld! 🎉", "stop")
    assert [request.prompt for request in guarded.served.backend.requests] == ["I am EMAIL_ADDRESS_1"]
    assert answer.headers["x-manta-safety"] == "redacted"
    assert "bob@" not in json.dumps(guarded.entries()) + caplog.text


@pytest.mark.parametrize("action", ["redact", "pseudonymise"])
def test_an_echoed_prompt_is_the_one_that_the_model_read(guarded: Guarded, action: str) -> None:
    guarded.policies.set(pii={"requests": action}, content_answers=None)
    guarded.served.backend._words = lambda request: ["yes"]  # type: ignore[method-assign]
    answer = guarded.post(TEXT, {"prompt": ["I am bob@acme.com", "Hi"], "echo": True})

    shown = "EMAIL_ADDRESS_1" if action == "pseudonymise" else "<EMAIL_ADDRESS>"
    assert [text for text, _ in texts_of(answer, stream=False).values()] == [f"I am {shown}yes", "Hiyes"]


def test_a_client_that_leaves_ends_the_wait_for_a_check(guarded: Guarded) -> None:
    guarded.policies.set(deadline_s=30)
    guarded.classifier.mode = "slow"
    body = {"model": "fast", "prompt": "x"}
    with pytest.raises(httpx.ReadTimeout):
        guarded.served.http.post(TEXT, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=0.2)
    until = time.monotonic() + 5
    while not guarded.entries() and time.monotonic() < until:
        time.sleep(0.02)

    assert [entry["outcome"] for entry in guarded.entries()] == ["cancelled"]


def test_half_of_a_surrogate_pair_keeps_no_check_from_reading(guarded: Guarded) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\ud800 ATTACK"}'}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    ]
    answer = guarded.post(CHAT, {"messages": messages})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
    for text in guarded.classifier.texts:
        text.encode()


def test_a_refusal_as_an_answer_teaches_nothing_about_the_length_of_answers(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[Usage] = []
    monkeypatch.setattr(UsageEstimator, "learn", lambda *given: learnt.append(given[-1]))
    guarded.policies.set(on_block="answer")
    guarded.ask("HARM")
    guarded.ask("fine")

    assert [usage.completion_tokens for usage in learnt] == [5]
