"""What a model thinks before it answers comes beside the answer, however its text is cut, streamed and whole alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import (
    TOOL_CALL_START,
    Delta,
    FinishReason,
    GenerationRequest,
    Logprob,
    SamplingParams,
    TokenLogprobs,
    Usage,
)
from router.answer_events import Ended, Opened, Reasoning, Text, ToolCallArguments
from router.generation.answer_event_builder import AnswerEventBuilder
from router.generation.choice_parser import ChoiceParser
from router.generation.reasoning_parser import MAX_LEADING_SPACE, ReasoningParser
from router.inference_request import TextParsing
from router.usage_meter import UsageMeter
from tests.router.backend import ScriptedBackend
from tests.router.served import Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]

PIECES = st.lists(st.sampled_from(["<think>", "</think>", TOOL_CALL_START, "<th", "ink>", "</", " ", "\n", "a", "<"]))
TEXTS = PIECES.map("".join)
CUTS = st.lists(st.integers(0, 120), max_size=12)


def parts(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


def expected(text: str, marks: Sequence[str] = ()) -> tuple[str, str]:
    """Reasoning and the rest of a whole text, by its definition."""
    begun = text.lstrip()
    if not begun.startswith("<think>") or len(text) - len(begun) > MAX_LEADING_SPACE:
        return "", text
    inside = begun.removeprefix("<think>")
    places = [inside.find(end) for end in ("</think>", *marks) if end in inside]
    if not places:
        return inside, ""
    return inside[: min(places)], inside[min(places) :].removeprefix("</think>")


@given(TEXTS, CUTS, st.sampled_from([(), (TOOL_CALL_START,)]))
def test_however_the_text_is_cut_the_parts_are_the_same(text: str, cuts: list[int], marks: tuple[str, ...]) -> None:
    parser = ReasoningParser(marks)
    found = [*(parser.push(part) for part in parts(text, cuts)), parser.finish()]

    assert ("".join(thought for thought, _ in found), "".join(rest for _, rest in found)) == expected(text, marks)


@pytest.mark.parametrize("space", [MAX_LEADING_SPACE, MAX_LEADING_SPACE + 1])
@pytest.mark.parametrize("step", [1, 7, 500])
def test_white_space_without_end_is_not_held_back(space: int, step: int) -> None:
    text = " " * space + "<think>a</think>b"
    parser = ReasoningParser()
    found = [*(parser.push(text[place : place + step]) for place in range(0, len(text), step)), parser.finish()]

    whole = "".join(thought for thought, _ in found), "".join(rest for _, rest in found)
    assert whole == (("a", "b") if space == MAX_LEADING_SPACE else ("", text))


def test_an_answer_without_reasoning_is_not_parsed_any_further() -> None:
    prompt = AnswerEventBuilder(0, SamplingParams(), TextParsing(reasoning=True))
    prompt.push([Delta("a", (1,), "\n")])
    assert prompt._parsers
    events = prompt.push([Delta("a", (1,), "Hello")])

    assert events == [Text(0, "\nHello")]
    assert not prompt._parsers


@pytest.mark.parametrize("step", [1, 3, 8, 400])
@pytest.mark.parametrize(
    ("text", "reasoning", "content", "calls"),
    [
        (f"<think>\nHm.\n</think>\n\nSo:\n{CALL}", "\nHm.\n", "\n\nSo:", 1),
        (f"<think>Hm.</think>{CALL}\n{CALL}", "Hm.", "", 2),
        (f"<think>Hm. {CALL}", "Hm. ", "", 1),  # a call ends the reasoning
        (CALL, "", "", 1),
        (f"Hm.</think>{CALL}", "", "Hm.</think>", 1),
        ("<think>Hm", "Hm", "", 0),
    ],
)
def test_reasoning_comes_before_calls(text: str, reasoning: str, content: str, calls: int, step: int) -> None:
    parser = ChoiceParser(3, TextParsing(reasoning=True, tool_calls=True))
    pieces = [piece for place in range(0, len(text), step) for piece in parser.push(text[place : place + step])]
    pieces += parser.finish()

    assert {piece.choice for piece in pieces} <= {3}
    assert "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)) == reasoning
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == content
    arguments = "".join(piece.text for piece in pieces if isinstance(piece, ToolCallArguments))
    assert arguments == '{"a": 1}' * calls
    assert parser.called == (calls > 0)


def test_what_is_held_back_comes_with_the_end() -> None:
    prompt = AnswerEventBuilder(0, SamplingParams(), TextParsing(reasoning=True))
    events = prompt.push([Delta("a", (1,), "<thi", FinishReason.LENGTH, Usage(1, 1, 0))])

    assert events == [Opened(0), Text(0, "<thi"), Ended(0, FinishReason.LENGTH)]


class Says(ScriptedBackend):
    """Answers in pieces of three characters."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._said = text

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        return [self._said[place : place + 3] for place in range(0, len(self._said), 3)]


def streamed(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    text = served.http.post("/v1/chat/completions", json=body | {"stream": True}).text
    return [json.loads(frame.removeprefix("data: ")) for frame in text.split("\n\n") if frame and "[DONE]" not in frame]


def deltas(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in streamed(served, body) for choice in chunk["choices"]]


@pytest.mark.parametrize("fields", [{}, {"include_reasoning": True}, {"logprobs": True}, {"tools": TOOLS}], ids=str)
def test_it_is_a_member_of_its_own(served: Served, fields: dict[str, Any]) -> None:
    served.backend = Says("<think>Let me see.</think>Four.")

    message = served.http.post("/v1/chat/completions", json=CHAT | fields).json()["choices"][0]["message"]
    pieces = deltas(served, CHAT | fields)

    assert (message["reasoning_content"], message["content"]) == ("Let me see.", "Four.")
    assert "".join(piece.get("reasoning_content", "") for piece in pieces) == "Let me see."
    assert "".join(piece.get("content", "") for piece in pieces) == "Four."
    assert pieces[0] == {"role": "assistant", "content": "", "refusal": None}
    assert not any("content" in piece and "reasoning_content" in piece for piece in pieces)


@pytest.mark.parametrize("said", ["<think>Let me see.</think>Four.", "Four."])
def test_log_probabilities_are_of_all_tokens_whether_reasoning_is_shown_or_not(served: Served, said: str) -> None:
    served.backend = Says(said)
    for shown in (True, False):
        asked = CHAT | {"logprobs": True, "include_reasoning": shown}
        whole = served.http.post("/v1/chat/completions", json=asked).json()["choices"][0]["logprobs"]["content"]
        told = [
            one
            for chunk in streamed(served, asked)
            for choice in chunk["choices"]
            for one in (choice["logprobs"] or {"content": []})["content"]
        ]

        assert "".join(one["token"] for one in whole) == said
        assert told == whole


def test_it_is_left_out_if_it_is_not_wanted(served: Served) -> None:
    served.backend = Says("<think>Let me see.</think>Four.")

    message = served.http.post("/v1/chat/completions", json=CHAT | {"include_reasoning": False}).json()["choices"][0]
    pieces = deltas(served, CHAT | {"include_reasoning": False})

    assert "reasoning_content" not in message["message"]
    assert message["message"]["content"] == "Four."
    assert "".join(piece.get("content", "") for piece in pieces) == "Four."
    assert not any("reasoning_content" in piece for piece in pieces)


def test_an_answer_without_reasoning_has_no_such_member(served: Served) -> None:
    message = served.http.post("/v1/chat/completions", json=CHAT).json()["choices"][0]["message"]

    assert "reasoning_content" not in message


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "<think>.*"},
        {"response_format": {"type": "json_object"}},
        {"tools": TOOLS, "guided_regex": "<think>.*"},
    ],
    ids=str,
)
def test_an_answer_of_a_given_form_is_taken_as_it_is(served: Served, fields: dict[str, Any]) -> None:
    served.backend = Says("<think>a</think>b")

    message = served.http.post("/v1/chat/completions", json=CHAT | fields).json()["choices"][0]["message"]

    assert message["content"] == "<think>a</think>b"
    assert "reasoning_content" not in message


def test_an_answer_that_is_all_reasoning_can_be_sent_back(served: Served) -> None:
    served.backend = Says("<think>Let me")
    message = served.http.post("/v1/chat/completions", json=CHAT).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Let me", "")

    again = served.http.post("/v1/chat/completions", json=CHAT | {"messages": [*CHAT["messages"], message]})

    assert again.status_code == 200, again.text
    assert served.backend.requests[-1].prompt.messages[-1].reasoning_content == "Let me"  # type: ignore[union-attr]


def test_each_choice_thinks_by_itself(served: Served) -> None:
    served.backend = Says("<think>a</think>b")

    choices = served.http.post("/v1/chat/completions", json=CHAT | {"n": 2}).json()["choices"]

    # The scripted second choice begins with its number, and so with no reasoning.
    assert [choice["message"].get("reasoning_content") for choice in choices] == ["a", None]
    assert choices[1]["message"]["content"] == "1<think>a</think>b"


def test_text_completions_are_taken_as_they_are(served: Served) -> None:
    served.backend = Says("<think>a</think>b")

    answer = served.http.post("/v1/completions", json={"model": "fast", "prompt": "Hi"}).json()

    assert answer["choices"][0]["text"] == "<think>a</think>b"


@pytest.mark.parametrize(
    ("deltas", "tokens"),
    [
        ([("<think>", 1), ("Hm.", 2), ("</think>", 1), ("So.", 3)], 2),
        ([("<think>Hm.", 4), ("</think>So.", 4)], 4),
        ([("<think>abcd</think>efghijkl", 12)], 4),  # a beam search, or the best of several, comes in one piece
        ([("<think>abcd", 6)], 6),
        ([("<think></think>efgh", 6)], 0),
        ([("abcd", 6)], 0),
        ([(f"<think>abcd</think>{CALL}", 12)], 4),  # of 4 + 1 + 8 characters: the name and the arguments count
    ],
    ids=str,
)
def test_its_tokens_are_counted_by_its_share_of_the_characters(deltas: list[tuple[str, int]], tokens: int) -> None:
    meter = UsageMeter()
    prompt = AnswerEventBuilder(0, SamplingParams(), TextParsing(reasoning=True, tool_calls=True), meter)
    for text, count in deltas:
        prompt.push([Delta("a", tuple(range(count)), text)])

    assert meter.reasoning_tokens == tokens


def test_of_the_best_answers_only_the_reasoning_counts_as_such() -> None:
    meter, sampling = UsageMeter(), SamplingParams(best_of=2, logprobs=0)
    prompt = AnswerEventBuilder(0, sampling, TextParsing(reasoning=True), meter)
    for choice in (0, 1):
        scores = tuple(TokenLogprobs(Logprob(token, "x", b"x", -1.0 - choice), (), 1) for token in range(8))
        prompt.push([Delta("a", tuple(range(8)), "<think>ab</think>cdefgh", logprobs=scores, choice=choice)])
        end = Delta("a", (), "", FinishReason.STOP, Usage(1, 16, 0) if choice else None, choice=choice)
        prompt.push([end])

    assert meter.reasoning_tokens == 2
