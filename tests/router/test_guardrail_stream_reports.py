"""What users of other guardrails reported about spans, streams, choices and log probabilities, asked of this service
over HTTP. Each test names the report."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest

from engine.api import GenerationRequest
from tests.router.guarded import CHAT, TEXT, Guarded, SettlingBackend
from tests.router.says import TOOL, Says, reads

REFUSAL = "Acme says no."


class SaysEach(SettlingBackend):
    """Answers each choice with its own text, in deltas of ``size`` characters, one of each choice at a time."""

    def __init__(self, *texts: str, size: int = 3) -> None:
        super().__init__()
        self._texts = texts
        self._size = size

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        return self._cut(self._texts[0])

    def _choice(self, request: GenerationRequest, choice: int, words: Sequence[tuple[int, str]]) -> list[Any]:
        return super()._choice(request, choice, list(enumerate(self._cut(self._texts[choice]))))[1:]

    def _cut(self, text: str) -> list[str]:
        return [text[place : place + self._size] for place in range(0, len(text), self._size)]


def chunks_of(guarded: Guarded, text: str = "Hi", **more: Any) -> list[dict[str, Any]]:
    """The chunks of a streamed answer."""
    answer = guarded.ask(text, stream=True, **more)
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


GROWING = ("\ufdfa", "\ufb03", "\u2075\u00bd", "\u1e9b\u0323", "e\u0301\u0323", "\U0001f468\u200d\U0001f469", "\u2026")
"""What normalisation makes longer or shorter: a ligature of eighteen letters, one of three, fractions, marks."""


@pytest.mark.parametrize("before", GROWING)
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("jane@example.com", "EMAIL_ADDRESS"),
        ("4111 1111 1111 1111", "CREDIT_CARD"),
        ("123-45-6789", "US_SSN"),
        ("GB82WEST12345698765432", "IBAN_CODE"),
    ],
)
def test_text_that_normalisation_makes_longer_moves_no_span(
    guarded: Guarded, before: str, value: str, kind: str
) -> None:
    """openmed 514 and pasteguard 145: after characters that normalise to more or fewer, a mark covered the wrong ones
    and the end of the value stayed."""
    guarded.policies.set(pii={"requests": "redact"})
    text = f"{before * 40} SSN {before} {value} {before} end"

    assert reads(guarded, text) == f"{before * 40} SSN {before} <{kind}> {before} end"


@pytest.mark.parametrize("ligature", ["\ufb03", "\ufb01", "\u0133"])
def test_a_ligature_in_an_address_belongs_to_it(guarded: Guarded, ligature: str) -> None:
    """The same, where the value itself has such a character."""
    guarded.policies.set(pii={"requests": "redact"})

    assert reads(guarded, f"ask o{ligature}ce@example.com now") == "ask <EMAIL_ADDRESS> now"


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_phrase_that_few_characters_spell_is_halted_before_it(guarded: Guarded, size: int) -> None:
    """One character may be a whole blocked phrase, or a part of a word of it."""
    whole = unicodedata.normalize("NFKD", "\ufdfa")
    guarded.policies.set(phrases={"block": [whole, "office"]}, refusal=REFUSAL)
    for text, before in (("so \ufdfa and on", "so "), ("the o\ufb03ce is", "the ")):
        guarded.served.backend = Says(text, size=size)
        content = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks_of(guarded))
        assert content.endswith(REFUSAL)
        assert before.startswith(content.removesuffix(REFUSAL))


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("123\u201145\u20116789", "US_SSN"),
        ("123\u201345\u20136789", "US_SSN"),
        ("4111\u00a01111\u00a01111\u00a01111", "CREDIT_CARD"),
        ("4111\u00ad1111\u00ad1111\u00ad1111", "CREDIT_CARD"),
        ("\uff14\uff11\uff11\uff11 1111 1111 1111", "CREDIT_CARD"),
        ("jane\u200b@example.com", "EMAIL_ADDRESS"),
        ("+1\u2011202\u2011555\u20110147", "PHONE_NUMBER"),
    ],
)
def test_what_word_processors_write_is_found(guarded: Guarded, written: str, kind: str) -> None:
    """ferret-scan 671: hyphens, spaces and digits that other software puts in hid the value."""
    guarded.policies.set(pii={"requests": "redact"})

    assert reads(guarded, f"My SSN, card or phone: {written}, please.") == f"My SSN, card or phone: <{kind}>, please."


def test_a_part_of_an_identifier_is_no_telephone_number(guarded: Guarded) -> None:
    """Presidio 71: the end of a GUID was taken for a telephone number."""
    guarded.policies.set(pii={"requests": "redact"})
    text = "phone record 110bcd25-a55d-453a-8046-1297901ea002 is new"

    assert reads(guarded, text) == text


@pytest.mark.parametrize(("unchecked", "label"), [(["user"], "unscanned"), (["tool"], "allowed")])
def test_a_request_of_which_nothing_is_to_be_read_was_not_read(
    guarded: Guarded, unchecked: list[str], label: str
) -> None:
    """LiteLLM 39050: where the scope left nothing to scan, the log said that the check had passed."""
    guarded.policies.set(unchecked=unchecked)

    assert guarded.ask("HARM" if label == "unscanned" else "Hi").headers["x-manta-safety"] == label


@pytest.mark.parametrize("mode", ["hold", "beside"])
@pytest.mark.parametrize("text", ["All is well. ", "One word", "x"])
def test_the_last_text_does_not_come_with_the_end(guarded: Guarded, mode: str, text: str) -> None:
    """linagora/openrag 462 and fms-guardrails-orchestrator 516: the chunk that ends a choice had the held text, which
    clients ignore there; or it was lost with an empty last piece."""
    guarded.policies.set(stream=mode, pii={"answers": "redact"})
    guarded.served.backend = Says(*text, "")
    choices = [choice for chunk in chunks_of(guarded) for choice in chunk["choices"]]

    assert "".join(choice["delta"].get("content") or "" for choice in choices) == text
    ends = [choice for choice in choices if choice["finish_reason"] is not None]
    assert [choice["finish_reason"] for choice in ends] == ["stop"]
    assert not ends[0]["delta"].get("content")


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("tools", [False, True])
def test_a_halted_choice_ends_once(guarded: Guarded, n: int, tools: bool) -> None:
    """LiteLLM 39036 and wso2/api-platform 1563: a `stop` came before the filter's end, or the refusal again with each
    later chunk."""
    guarded.policies.set(phrases={"block": ["zorblax"]}, refusal=REFUSAL)
    said = '<tool_call>\n{"name": "send", "arguments": {"text": "a zorblax and more"}}\n</tool_call>'
    guarded.served.backend = SaysEach(*[said if tools else "a zorblax and more words after it"] * n)
    more: dict[str, Any] = {"tools": [TOOL], "stream_options": {"include_usage": True}} if tools else {}
    documents = chunks_of(guarded, n=n, **more)
    choices = [choice for chunk in documents for choice in chunk["choices"]]

    for index in range(n):
        of_choice = [choice for choice in choices if choice["index"] == index]
        assert [each["finish_reason"] for each in of_choice if each["finish_reason"]] == ["content_filter"]
        assert sum((each["delta"].get("content") or "").count(REFUSAL) for each in of_choice) == 1
        assert of_choice[-1]["finish_reason"] == "content_filter"
    assert "zorblax" not in json.dumps(documents)


def test_every_choice_has_a_delta(guarded: Guarded) -> None:
    """autogen 6465 and langchain 18977: chunks of the filter alone had no `delta`, and clients broke."""
    guarded.policies.set(phrases={"block": ["zorblax"]}, pii={"answers": "redact"})
    guarded.served.backend = Says("ask jane@example.com", " for a ", "zorblax", " now")

    for chunk in chunks_of(guarded):
        assert all("delta" in choice and "finish_reason" in choice for choice in chunk["choices"])
        assert chunk["choices"]
        assert chunk["id"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_arguments_of_each_choice_are_scanned(guarded: Guarded, stream: bool) -> None:
    """LiteLLM 30830 and kaito 2157: of several choices only the first was looked at, or tools with `n` were refused."""
    guarded.policies.set(pii={"answers": "redact"}, phrases={"block": ["zorblax"]}, refusal=REFUSAL)
    texts = ["nothing", "jane@example.com", "a zorblax"]
    said = [
        f'<tool_call>\n{{"name": "send", "arguments": {json.dumps({"to": text, "cc": "x"})}}}\n</tool_call>'
        for text in texts
    ]
    guarded.served.backend = SaysEach(*said)
    answer = guarded.ask("Hi", n=3, tools=[TOOL], stream=stream)

    assert answer.status_code == 200, answer.text
    assert "jane" not in answer.text
    assert "zorblax" not in answer.text
    arguments, reasons = ["", "", ""], ["", "", ""]
    for choice in choices_of(answer.text, stream):
        index, message = choice["index"], choice.get("delta") or choice.get("message")
        for call in (message or {}).get("tool_calls") or ():
            arguments[index] += call["function"].get("arguments") or ""
        reasons[index] = choice["finish_reason"] or reasons[index]
    assert json.loads(arguments[0]) == {"to": "nothing", "cc": "x"}
    assert json.loads(arguments[1]) == {"to": "<EMAIL_ADDRESS>", "cc": "x"}
    assert reasons == ["tool_calls", "tool_calls", "content_filter"]


def choices_of(body: str, stream: bool) -> list[dict[str, Any]]:
    lines = [line[6:] for line in body.split("\n\n") if line.startswith("data: {")] if stream else [body]
    return [choice for line in lines for choice in json.loads(line)["choices"]]


VALUES = ("jane.doe@example.com", "4111 1111 1111 1111", "AKIAIOSFODNN7EXAMPLQ")
FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": (CHAT, "Say {} and {} to {} now.", {}),
    "completions": (TEXT, "Say {} and {} to {} now.", {}),
    "json": (CHAT, '{{"a": "{}", "b": ["{}"], "c": "{}"}}', {"response_format": {"type": "json_object"}}),
    "tools": (
        CHAT,
        '<tool_call>\n{{"name": "send", "arguments": {{"a": "{}", "b": "{}", "c": "{}"}}}}\n</tool_call>',
        {"tools": [TOOL]},
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", FORMS)
def test_log_probabilities_show_nothing_of_what_is_redacted(
    guarded: Guarded, form: str, seed: int, stream: bool
) -> None:
    """The texts and bytes of tokens, and the alternatives in their places, come with text that was sent and never
    with text that was replaced."""
    guarded.policies.set(pii={"answers": "redact"}, secrets={"answers": "redact"})
    path, text, more = FORMS[form]
    whole, draw = text.format(*VALUES), random.Random(seed)
    cuts = sorted(draw.sample(range(1, len(whole)), min(len(whole) // 3, len(whole) - 1)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    guarded.served.backend = Says(*pieces)
    asked: dict[str, Any] = {"prompt": "Hi", "logprobs": 2}
    if path == CHAT:
        asked = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2}
    answer = guarded.post(path, {**asked, **more, "stream": stream})
    assert answer.status_code == 200, answer.text

    tokens: list[str] = []
    shown: list[str] = []
    for choice in choices_of(answer.text, stream):
        scores = choice.get("logprobs") or {}
        for each in scores.get("content") or ():
            tokens.append(each["token"])
            shown += [bytes(each["bytes"]).decode(), *(one["token"] for one in each["top_logprobs"])]
        tokens += scores.get("tokens") or ()
        shown += [token for top in scores.get("top_logprobs") or () for token in top]
    kept = "".join(tokens)
    for value in VALUES:
        for place in range(len(value) - 4):
            assert value[place : place + 5] not in kept
        assert value not in answer.text
    inside = planted_pieces(whole, pieces)
    assert not inside & set(shown)


def planted_pieces(whole: str, pieces: Sequence[str]) -> set[str]:
    """The pieces that lie within a planted value and nowhere else in the text."""
    found, place = set(), 0
    spans = [(at, at + len(value)) for value in VALUES if (at := whole.find(value)) >= 0]
    rest = "".join(unicodedata.normalize("NFC", whole).split())
    for value in VALUES:
        rest = rest.replace("".join(value.split()), "")
    for piece in pieces:
        inside = any(start <= place and place + len(piece) <= end for start, end in spans)
        if inside and len(piece) > 2 and "".join(piece.split()) not in rest:
            found.add(piece)
        place += len(piece)
    return found


@pytest.mark.parametrize("pieces", [("Hello", ""), ("", "Hello"), ("",), ("Hello", "", "")])
@pytest.mark.parametrize("policy", [{}, {"pii": {"answers": "redact"}, "content_answers": None}, {"stream": "beside"}])
def test_an_empty_piece_loses_no_end(guarded: Guarded, pieces: Sequence[str], policy: dict[str, Any]) -> None:
    """fms-guardrails-orchestrator 516: a last chunk without text, which is not checked, was not sent."""
    guarded.policies.set(**policy)
    guarded.served.backend = Says(*pieces)
    chunks = chunks_of(guarded, stream_options={"include_usage": True})
    choices = [choice for chunk in chunks for choice in chunk["choices"]]

    assert "".join(each["delta"].get("content") or "" for each in choices) == "".join(pieces)
    assert [each["finish_reason"] for each in choices if each["finish_reason"]] == ["stop"]
    assert chunks[-1]["usage"]["completion_tokens"] > 0
