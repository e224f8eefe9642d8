"""What users of other guardrails reported, asked of this service over HTTP. Each test names the report."""

from __future__ import annotations

import base64
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.api import Conversation
from tests.router.guarded import CHAT, TEXT, Guarded
from tests.router.says import TOOL, Says, read, reads
from tests.router.served import KEY


def streamed(guarded: Guarded, text: str = "Hi", **more: Any) -> tuple[str, str | None]:
    """The content of a streamed answer, and its finish reason."""
    answer = guarded.ask(text, stream=True, **more)
    assert answer.status_code == 200, answer.text
    documents = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    choices = [choice for document in documents for choice in document["choices"]]
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    return content, next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), None)


@pytest.mark.parametrize(
    "text",
    [
        "Call 202-555-0147, please check the order.",
        "Card 4111 1111 1111 1111, please check the order.",
        "Account GB82WEST12345698765432, or 078-05-1120, please check the order.",
        "From 10.20.30.40, a@b.example, 202-555-0147, please check the order.",
    ],
)
def test_values_that_overlap_are_replaced_once_and_eat_nothing(guarded: Guarded, text: str) -> None:
    """LiteLLM 42130: where two kinds overlapped, placeholders were spliced, and the text behind was eaten."""
    guarded.policies.set(pii={"requests": "pseudonymise"})
    guarded.served.backend = Says("{prompt}")
    prompt = reads(guarded, text)
    answer = guarded.ask(text).json()["choices"][0]["message"]["content"]

    assert prompt.endswith(", please check the order.")
    assert prompt != text
    assert "><" not in prompt
    assert answer == text


def test_each_of_several_addresses_in_a_row_is_redacted(guarded: Guarded) -> None:
    """Presidio 1925: of values with nothing but a space between them only the first was replaced."""
    guarded.policies.set(pii={"requests": "redact"})

    prompt = reads(guarded, "contact@example.com support@example.org admin@example.net")

    assert prompt == "<EMAIL_ADDRESS> <EMAIL_ADDRESS> <EMAIL_ADDRESS>"


@pytest.mark.parametrize("text", ["Hi 😀 write to dani@example.com now", "👩‍👩‍👧 e\u0301 dani@example.com 🎉"])
def test_characters_outside_the_basic_plane_move_no_span(guarded: Guarded, text: str) -> None:
    """ayunis-core 1620: after an emoji the end of the value stayed, and the character before it went."""
    guarded.policies.set(pii={"requests": "redact", "answers": "redact"})
    guarded.served.backend = Says(*f"Ask 😀 {text}")
    expected = text.replace("dani@example.com", "<EMAIL_ADDRESS>")

    assert reads(guarded, text) == expected
    assert streamed(guarded) == (f"Ask 😀 {expected}", "stop")


def test_a_word_in_two_tokens_is_one_word(guarded: Guarded) -> None:
    """NeMo Guardrails 1197: a space between the tokens "ass" and "isting" made a blocked word."""
    guarded.policies.set(phrases={"block": ["ass"]})
    guarded.served.backend = Says("I was ", "ass", "isting", " you; c", "l", "ass", "es too")

    assert streamed(guarded) == ("I was assisting you; classes too", "stop")


@pytest.mark.parametrize("kind", ["pii", "secrets", "phrases"])
def test_a_value_in_two_chunks_is_not_sent(guarded: Guarded, kind: str) -> None:
    """LiteLLM 41611: each chunk passed by itself, and a carry-over found the value after its first half was sent."""
    value = {"pii": "jane.doe@example.com", "secrets": "AKIAQYLPMN5HIQEXAMPL", "phrases": "project bluebird"}[kind]
    policy: dict[str, Any] = {kind: {"block": ["project bluebird"]} if kind == "phrases" else {"answers": "block"}}
    guarded.policies.set("acme", **policy)
    for cut in range(1, len(value)):
        guarded.served.backend = Says("It is ", value[:cut], value[cut:], ". Then more.")
        content, reason = streamed(guarded)

        assert reason == "content_filter"
        assert content.removeprefix("It is ").startswith(value[:1]) is False, content


@pytest.mark.parametrize("stream", [False, True])
def test_pseudonyms_in_the_arguments_of_a_call_are_put_back(guarded: Guarded, stream: bool) -> None:
    """LiteLLM 31950: values came back in the content, and not in the arguments of tool calls."""
    guarded.policies.set(pii={"requests": "pseudonymise"})
    call = '<tool_call>\n{"name": "send", "arguments": {"to": "{prompt}"}}\n</tool_call>'
    guarded.served.backend = Says(call, size=5)
    answer = guarded.ask("jane.doe@example.com", tools=[TOOL], stream=stream)
    assert answer.status_code == 200, answer.text
    if stream:
        documents = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
        parts = [c["delta"].get("tool_calls") or () for d in documents for c in d["choices"]]
        arguments = "".join(call["function"].get("arguments", "") for calls in parts for call in calls)
    else:
        arguments = answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]

    assert "jane.doe" not in read(guarded.served.backend.requests[-1])
    assert json.loads(arguments) == {"to": "jane.doe@example.com"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("address", "sent"), [("jane@rival.example", False), ("jane@acme.example", True)])
def test_a_rule_about_arguments_sees_the_values_of_pseudonyms(
    guarded: Guarded, address: str, sent: bool, stream: bool
) -> None:
    """LiteLLM 35999 and 35257: permissions on tools did not see the arguments that the client got, and what they denied
    was no finding in the log."""
    rule = {"action": "deny", "name": "send", "arguments": {"to": r".*@rival\.example"}}
    guarded.policies.set(pii={"requests": "pseudonymise"}, tools=[rule], content_answers=None)
    call = '<tool_call>\n{"name": "send", "arguments": {"to": "{prompt}"}}\n</tool_call>'
    guarded.served.backend = Says(call, size=5)
    answer = guarded.ask(address, tools=[TOOL], stream=stream)

    assert read(guarded.served.backend.requests[-1]) == "EMAIL_ADDRESS_1"
    assert (address in answer.text) is sent
    assert ("content_filter" in answer.text) is not sent
    [entry] = guarded.entries()
    assert entry["safety"]["decision"] == ("redacted" if sent else "blocked")
    assert answer.headers["x-manta-safety"] == ("redacted" if sent or stream else "blocked")
    assert any(line.startswith("tools@") for line in entry["safety"]["verdicts"]) is not sent


def test_personal_data_in_a_tool_result_is_redacted(guarded: Guarded) -> None:
    """LiteLLM 14612 and 34940: results of tools were not masked, or lost their id when they were."""
    guarded.policies.set(pii={"requests": "redact"})
    call = {"id": "call_1", "type": "function", "function": {"name": "send", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Who wrote?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "jane.doe@example.com wrote"},
    ]
    assert guarded.post(CHAT, {"messages": messages, "tools": [TOOL]}).status_code == 200
    prompt = guarded.served.backend.requests[-1].prompt
    assert isinstance(prompt, Conversation)

    assert [message.role for message in prompt.messages] == ["user", "assistant", "tool"]
    assert prompt.messages[-1].content == "<EMAIL_ADDRESS> wrote"
    assert prompt.messages[-1].tool_call_id == "call_1"


def test_a_rule_for_requests_leaves_answers_alone(guarded: Guarded) -> None:
    """LiteLLM 25780: a rule for the time before the call also masked the streamed answer."""
    guarded.policies.set(pii={"requests": "redact"})
    guarded.served.backend = Says("Ask help@", "example.org.")

    assert streamed(guarded, "I am jane.doe@example.com") == ("Ask help@example.org.", "stop")


@pytest.mark.parametrize("answers", ["off", "redact"])
def test_what_redacts_answers_leaves_the_users_own_values(guarded: Guarded, answers: str) -> None:
    """LiteLLM 28197 and 28316: the values that were put back into a stream were masked again."""
    guarded.policies.set(pii={"requests": "pseudonymise", "answers": answers})
    guarded.served.backend = Says("Dear {prompt}, ", "ask help@example.org.", size=4)
    other = "help@example.org" if answers == "off" else "<EMAIL_ADDRESS>"

    assert streamed(guarded, "jane.doe@example.com") == (f"Dear jane.doe@example.com, ask {other}.", "stop")


def test_requests_at_the_same_time_do_not_share_pseudonyms(guarded: Guarded) -> None:
    """llm-guard 131 and LiteLLM 19950: one vault for all requests put a value of one into the answer to another."""
    guarded.policies.set(pii={"requests": "pseudonymise"})
    guarded.served.backend = Says("Dear ", "{prompt}", "!")
    addresses = [f"user{number}@example.com" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda address: streamed(guarded, address)[0], addresses))

    assert answers == [f"Dear {address}!" for address in addresses]


def test_equal_values_have_one_pseudonym(guarded: Guarded) -> None:
    """llm-guard 283: the same value got another placeholder each time, and the model took it for two persons."""
    guarded.policies.set(pii={"requests": "pseudonymise"})
    prompt = reads(guarded, "a@example.com wrote to b@example.com, and a@example.com wrote again")
    first, second, third = [word.rstrip(",") for word in prompt.split() if "EMAIL" in word]

    assert first == third != second


@pytest.mark.parametrize(
    "text",
    [
        '{"awsAccountId":"327878933619","digestPublicKeyFingerprint":"be2f0b997552f44942837300ba1aba9d",'
        '"previousDigestHashValue":"8f953371d3e85eddb89b05ed6b9e680791055315c73e1025ab5dba7bb2aee189"}',
        "resp = v1_models.ListWorkspacesResponse.from_db_workspaces(wslist)",
        "conversation_summary = v1_models.ConversationSummary(chat_id=chat.id)",
    ],
)
def test_code_and_logs_are_no_secrets(guarded: Guarded, text: str) -> None:
    """llm-guard 147 and codegate 1228: logs broke the scanner, and names in code were taken for secrets."""
    guarded.policies.set(secrets={"requests": "redact"})

    assert reads(guarded, text) == text


@pytest.mark.parametrize("prompt", ["Say HARM", ["Hi", "Say HARM"]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_list_of_prompts_is_read_as_one_prompt_is(guarded: Guarded, prompt: Any, stream: bool) -> None:
    """LiteLLM 41787: a list of prompts, or an empty list of messages beside it, went past the check."""
    answer = guarded.post(TEXT, {"prompt": prompt, "stream": stream})
    beside = guarded.post(TEXT, {"prompt": prompt, "messages": []})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
    assert beside.status_code == 400
    assert not guarded.served.backend.requests


def test_a_request_that_no_check_could_read_is_not_called_a_success(guarded: Guarded) -> None:
    """LiteLLM 38568: where a failing guardrail let a request pass, the log said success."""
    guarded.policies.set(when_unavailable="pass", pii={"requests": "redact"})
    guarded.classifier.mode = "dead"
    answer = guarded.ask("Hello jane.doe@example.com")

    assert answer.headers["x-manta-safety"] == "unscanned"
    assert guarded.entries()[-1]["safety"]["decision"] == "unscanned"
    assert read(guarded.served.backend.requests[-1]) == "Hello <EMAIL_ADDRESS>", "the other checks still count"


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_before_a_call_is_checked(guarded: Guarded, stream: bool) -> None:
    """NeMo Guardrails 2016: an answer that was only a tool call went past the rails, with its reasoning."""
    guarded.policies.set(phrases={"block": ["bluebird"]})
    call = '<tool_call>\n{"name": "send", "arguments": {"to": "blue'
    guarded.served.backend = Says("<think>of a plan</think>", call, 'bird"}}\n</tool_call>')
    answer = guarded.ask("Hi", tools=[TOOL], stream=stream)

    assert answer.status_code == 200
    assert "bird" not in answer.text
    assert "content_filter" in answer.text


def test_parts_of_text_are_one_text_to_moderate(guarded: Guarded) -> None:
    """langchain4j 5523: a message of two parts could not be moderated."""
    parts = [{"type": "text", "text": "HA"}, {"type": "text", "text": "RM"}]
    moderated = guarded.post("/v1/moderations", {"input": parts, "model": None})
    asked = guarded.post(CHAT, {"messages": [{"role": "user", "content": parts}]}, KEY)

    assert moderated.json()["results"][0]["flagged"]
    assert asked.status_code == 400


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('{"mail": "\\u006aane.doe@example.com", "n": 1}', {"mail": "<EMAIL_ADDRESS>", "n": 1}),
        ('{"card": 4111111111111111, "n": 1}', {"card": "<CREDIT_CARD>", "n": 1}),
        ('{"note": "a \\"quoted\\" jane.doe@example.com\\n", "n": [1, null]}', None),
    ],
)
@pytest.mark.parametrize("more", [{}, {"tools": [TOOL]}], ids=["alone", "beside tools"])
def test_an_answer_in_json_stays_json_and_hides_no_value_in_an_escape(
    guarded: Guarded, written: str, value: Any, stream: bool, more: dict[str, Any]
) -> None:
    """agento11y 49 and rakazo 631: redaction ate marks of the JSON, or missed a value that was written with escapes."""
    guarded.policies.set(pii={"answers": "redact"})
    guarded.served.backend = Says(written, size=3)
    form = {"type": "json_object"}
    if stream:
        content = streamed(guarded, response_format=form, **more)[0]
    else:
        content = guarded.ask(response_format=form, **more).json()["choices"][0]["message"]["content"]

    expected = value or json.loads(written.replace("jane.doe@example.com", "<EMAIL_ADDRESS>"))
    assert json.loads(content) == expected


def test_pseudonyms_in_json_are_put_back_as_json(guarded: Guarded) -> None:
    """LiteLLM 31950: the same for an answer that is JSON as a whole."""
    guarded.policies.set(pii={"requests": "pseudonymise"})
    guarded.served.backend = Says('{"to": "{prompt}"}', size=4)
    content, _ = streamed(guarded, "o'neil@example.com", response_format={"type": "json_object"})

    assert json.loads(content) == {"to": "o'neil@example.com"}


@pytest.mark.parametrize("address", ["alice%40example.com", "alice%2Bnews%40mail.example.co.uk"])
def test_an_address_in_a_query_string_is_an_address(guarded: Guarded, address: str) -> None:
    """DAM 11: an address with an encoded @ was not found, though a link takes it out as well."""
    guarded.policies.set(pii={"requests": "redact", "answers": "redact"})
    text = f"See https://a.example/?to={address}&x=1 and mail {address}, or 100%40 of it."
    expected = text.replace(address, "<EMAIL_ADDRESS>")
    guarded.served.backend = Says(text, size=3)

    assert reads(guarded, text) == expected
    assert streamed(guarded) == (expected, "stop")


@pytest.mark.parametrize("kind", ["pii", "secrets"])
def test_encoded_bytes_are_no_personal_data(guarded: Guarded, kind: str) -> None:
    """initializ/forge 283: digits within base64 were taken for social security numbers."""
    policy: dict[str, Any] = {kind: {"requests": "redact"}}
    guarded.policies.set("acme", **policy)
    draw = random.Random(283)
    blobs = [base64.b64encode(draw.randbytes(3 * size)).decode() for size in range(30, 70)]

    for text in ("data:\n  ca.crt: " + "\n  ".join(blobs), f"sha256:{draw.randbytes(32).hex()}"):
        assert reads(guarded, text) == text
