"""Which texts of which requests the router gives to the log of texts: those that the client has seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from starlette.types import Message

from engine.api import FinishReason
from router.answer_events import Ended, Opened, Text, ToolCallArguments, ToolCallStart
from router.app_factory import build_app
from router.config.tenants import TenantConfig
from router.guard.json_strings import with_letters
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.text_log import LoggedText, RequestTexts
from router.requests.text_logging import SentTexts, without_escapes
from router.router_ports import RouterPorts
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.asgi_client import Client
from tests.router.backend import WORDS, ScriptedBackend
from tests.router.policies import Policies
from tests.router.served import CONFIG, KEY, OTHER_KEY, Served
from tests.safety.scripted_classifier import ScriptedClassifier

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ANSWER = "".join(WORDS)
ASKED = CONFIG.model_copy(update={"tenants": {"acme": TenantConfig(log_texts=True), "other": TenantConfig()}})


class Texts:
    """A log of texts that keeps them as they are. Implements ``TextLog``."""

    def __init__(self) -> None:
        self.found: list[RequestTexts] = []
        self.started = self.closed = 0
        self.max_text = 200

    def offer(self, texts: RequestTexts) -> None:
        self.found.append(texts)

    def start(self) -> None:
        self.started += 1

    def close(self) -> None:
        self.closed += 1


class Logged:
    """A router whose tenant ``acme`` has its texts logged, with a guard."""

    def __init__(self) -> None:
        self.texts, self.policies = Texts(), Policies()
        guard = PolicyGuard(self.policies, Parts(ScriptedClassifier()))
        self.served = Served(ASKED, MemoryStore(SystemClock()), guard, texts=self.texts)

    def ask(self, text: str = "Hi", key: str = KEY, path: str = CHAT, **more: object) -> RequestTexts | None:
        """Returns what was logged of a request; None: nothing was."""
        said = {"prompt": text} if path == TEXT else {"messages": [{"role": "user", "content": text}]}
        before = len(self.texts.found)
        headers = {"authorization": f"Bearer {key}"}
        self.answer = self.served.http.post(path, json={"model": "fast", **said, **more}, headers=headers)
        new = self.texts.found[before:]
        assert len(new) <= 1
        return new[0] if new else None


@pytest.fixture(scope="module")
def _made() -> Iterator[Logged]:
    made = Logged()
    yield made
    made.served.stop()
    assert (made.texts.started, made.texts.closed) == (1, 1)


@pytest.fixture
def logged(_made: Logged) -> Logged:
    _made.served.backend = ScriptedBackend()
    _made.policies.found.clear()
    _made.texts.found.clear()
    return _made


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_record_with_its_prompt_and_its_answer(logged: Logged, stream: bool) -> None:
    found = logged.ask("What is a quark?", stream=stream)

    assert found is not None
    assert found.prompt == (LoggedText("messages[0].content", "user", "What is a quark?"),)
    assert found.answers == (LoggedText("choices[0].text", "model", ANSWER),)
    assert (found.tenant, found.endpoint, found.tier) == ("acme", CHAT, "fast")
    assert (found.outcome, found.finish_reasons, found.truncated) == ("finished", ("stop",), False)
    assert found.request_id == logged.answer.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [None, RuntimeError("x")])
def test_a_tenant_that_has_not_asked_for_it_has_none_whatever_happens(
    logged: Logged, stream: bool, fault: Exception | None
) -> None:
    """Failed requests are those that are looked at (litellm#39385)."""
    logged.served.backend = ScriptedBackend(fault=fault, fault_at=2)
    assert logged.ask("What is a quark?", OTHER_KEY, stream=stream, metadata={"log_texts": "true"}) is None


def test_every_prompt_and_choice_has_its_texts(logged: Logged) -> None:
    found = logged.ask(path=TEXT, prompt=["one", "two"], n=2, stream=True)

    assert found is not None
    assert [(each.field, each.text) for each in found.prompt] == [("prompt[0]", "one"), ("prompt[1]", "two")]
    assert {each.field for each in found.answers} == {f"choices[{place}].text" for place in range(4)}
    assert found.finish_reasons == ("stop",) * 4


@pytest.mark.parametrize("stream", [False, True])
def test_of_an_answer_that_fails_there_is_what_the_client_has_got(logged: Logged, stream: bool) -> None:
    logged.served.backend = ScriptedBackend(fault=RuntimeError("x"), fault_at=2)
    found = logged.ask(stream=stream)

    assert found is not None
    assert (found.outcome, found.finish_reasons) == ("failed", ())
    sent = streamed(logged.answer.text)
    assert bool(sent) == stream
    assert "".join(each.text for each in found.answers) == sent


def streamed(body: str) -> str:
    """The text of a stream's chunks."""
    chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


class Leaving(Client):
    """A client that leaves once it has seen a word of the answer."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if WORDS[0] in self.text:
            self.left.set()


async def test_of_a_stream_whose_client_leaves_there_is_what_was_sent() -> None:
    texts = Texts()
    app = build_app(ASKED, ScriptedBackend(stall_at=2), RouterPorts(texts=texts))
    client = Leaving({"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True})
    async with asyncio.timeout(5):
        await app(client.scope(), client.receive, client.send)

    (found,) = texts.found
    assert found.outcome == "cancelled"
    assert WORDS[0] in client.text
    assert ANSWER.startswith("".join(each.text for each in found.answers))


@pytest.mark.parametrize("on_block", ["error", "answer"])
def test_a_request_that_the_guard_refuses_is_not_logged(logged: Logged, on_block: str) -> None:
    logged.policies.set(on_block=on_block)
    assert logged.ask("HARM them") is None


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_guard_holds_back_of_an_answer_is_not_logged(logged: Logged, stream: bool) -> None:
    logged.policies.set(phrases={"block": ["wörld"]})
    found = logged.ask(stream=stream)

    assert found is not None
    assert found.finish_reasons == ("content_filter",)
    assert not [each.text for each in found.answers if "wörld" in each.text]
    assert "wörld" not in logged.answer.text


def test_what_the_guard_has_rewritten_is_logged_as_it_was_rewritten(logged: Logged) -> None:
    logged.policies.set(pii={"requests": "redact"})
    found = logged.ask("I am jane@example.com")

    assert found is not None
    assert [each.text for each in found.prompt] == ["I am <EMAIL_ADDRESS>"]


def test_a_refusal_before_the_answer_is_no_record(logged: Logged) -> None:
    assert logged.ask(temperature=77) is None
    assert logged.ask(model="none") is None


def test_long_texts_are_cut(logged: Logged) -> None:
    found = logged.ask("word " * 50)

    assert found is not None
    assert [len(each.text) for each in found.prompt] == [200]
    assert found.truncated


def test_pieces_of_an_answer_are_joined_up_to_the_length_that_is_kept() -> None:
    sent = SentTexts(10, as_json=False)
    sent.push([Opened(0), Text(0, "jane@"), Text(0, "examp"), Text(0, "le.com")])
    sent.push([Ended(0, FinishReason.STOP)])

    assert sent.texts() == (LoggedText("choices[0].text", "model", "jane@examp"),)
    assert sent.truncated


def test_arguments_of_tool_calls_have_no_escapes_and_are_left_out_if_they_are_no_json() -> None:
    r"""An address that is written as jane\u0040example.com would be recognised by nothing."""
    sent = SentTexts(1000, as_json=False)
    sent.push([Opened(0), ToolCallStart(0, 0, "c1", "mail"), ToolCallArguments(0, 0, r'{"to": "jane\u0040')])
    sent.push([ToolCallArguments(0, 0, 'example.com"}'), ToolCallStart(0, 1, "c2", "mail")])
    sent.push([ToolCallArguments(0, 1, r'{"to": "john\u0040exa')])

    assert [(each.field, each.text) for each in sent.texts()] == [
        ("choices[0].tool_calls[0].name", "mail"),
        ("choices[0].tool_calls[0].arguments", '{"to": "jane@example.com"}'),
        ("choices[0].tool_calls[1].name", "mail"),
    ]
    assert sent.truncated


@pytest.mark.parametrize("text", ["", "{", "true", "null", "[" * 100_000, "[" * 5_000 + "]" * 5_000])
def test_what_cannot_be_read_as_json_has_no_text(text: str) -> None:
    assert without_escapes(text) is None


@pytest.mark.parametrize("form", ['["{}"]', '{{"{0}": 1, "{0}": 2}}'])
def test_json_keeps_its_structure(form: str) -> None:
    assert without_escapes(form.format(r"\u0041\u00e9")) == form.format("Aé")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"jane\u0040example.com", "jane@example.com"),
        (r"jane\\u0040example.com", "jane@example.com"),
        (r"\ud83c\udf89", "🎉"),
        (r"\ud83c", "\ufffd"),
        (r"C:\user \u12", r"C:\user \u12"),
        ("\\" * 200_000 + "u004", "\\" * 200_000 + "u004"),
    ],
)
def test_escapes_are_read_in_texts_that_are_no_json(text: str, read: str) -> None:
    assert with_letters(text) == read


def test_arguments_of_an_earlier_call_that_were_cut_off_hide_nothing(logged: Logged) -> None:
    """A client sends back what the model has called, which ``max_tokens`` may have cut off."""
    function = {"name": "pay", "arguments": r'{"card": "\u0034111 1111 1111 1111'}
    call = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
    found = logged.ask(messages=[call, {"role": "user", "content": "Hi"}])

    assert found is not None
    assert found.prompt[0] == LoggedText(
        "messages[0].tool_calls[0].function.arguments", "history", '{"card": "4111 1111 1111 1111'
    )


def test_escapes_of_an_answer_that_is_no_json_are_read(logged: Logged) -> None:
    sent = SentTexts(1000, as_json=False)
    sent.push([Opened(0), Text(0, r"It is `jane\u00"), Text(0, "40example.com`.")])

    assert [each.text for each in sent.texts()] == ["It is `jane@example.com`."]
