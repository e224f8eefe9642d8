"""Log probabilities of answers under a guard come with their text, and never with text that was replaced."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.api import FinishReason, Logprob, TokenLogprobs
from router.answer_events import AnswerEvent, Ended, Finished, Opened, Reasoning, Text, ToolCallArguments, ToolCallStart
from tests.router.guarded_answers import BLOCKING, REDACTING, USAGE, Guarded, Source, text_of


def token(text: str, added: bytes | None = None) -> tuple[TokenLogprobs, ...]:
    """The log probabilities of one token."""
    return (TokenLogprobs(Logprob(1, text, text.encode(), -1.0), (), added=added),)


def tokens_of(events: Sequence[AnswerEvent]) -> list[str]:
    """The texts of the tokens whose log probabilities were sent."""
    held = [event.logprobs for event in events if isinstance(event, Text | Reasoning | ToolCallArguments)]
    return [each.chosen.text for logprobs in held for each in logprobs or ()]


def test_log_probabilities_come_with_their_text_and_those_of_redacted_text_never(make_guarded: type[Guarded]) -> None:
    pieces = ["My", " se", "cr", "et", " is", " wörld"]
    batches: list[list[AnswerEvent]] = [[Text(0, piece, token(piece))] for piece in pieces]

    events = make_guarded(REDACTING)(Source([[Opened(0)], *batches, [Ended(0, FinishReason.STOP), Finished(USAGE)]]))

    assert text_of(events) == "My <KEY> is wörld"
    assert tokens_of(events) == ["My", " is", " wörld"]


def test_a_token_that_comes_before_its_text_waits_for_it(make_guarded: type[Guarded]) -> None:
    batches: list[list[AnswerEvent]] = [
        [Text(0, "", token("sec"))],  # text that may begin a stop string comes late
        [Text(0, "secret.", token("ret."))],
        [Text(0, "", token("<|im_end|>", b""))],
    ]

    events = make_guarded(REDACTING)(Source([[Opened(0)], *batches, [Ended(0, FinishReason.STOP), Finished(USAGE)]]))

    assert text_of(events) == "<KEY>."
    assert tokens_of(events) == ["<|im_end|>"]


@pytest.mark.parametrize("planted", [False, True])
def test_log_probabilities_of_a_parsed_answer_come_at_its_end_if_nothing_was_replaced(
    make_guarded: type[Guarded], planted: bool
) -> None:
    value = "secret" if planted else "public"
    batches: list[list[AnswerEvent]] = [
        [Opened(0), Reasoning(0, "Hm.", token("<think>Hm.</think>"))],
        [ToolCallStart(0, 0, "call_1", "look", token('<tool_call>\n{"name": "look", "arguments": '))],
        [ToolCallArguments(0, 0, f'{{"a": "{value}"}}', token(f'{{"a": "{value}"}}'))],
        [Ended(0, FinishReason.STOP, True), Finished(USAGE)],
    ]

    events = make_guarded(REDACTING)(Source(batches))

    assert len(tokens_of(events)) == (0 if planted else 3)
    assert text_of(events, ToolCallArguments) == ('{"a": "<KEY>"}' if planted else '{"a": "public"}')


def test_a_halted_choice_has_no_log_probabilities_of_what_was_not_sent(make_guarded: type[Guarded]) -> None:
    pieces = ["A", " b", "omb", " more"]
    batches: list[list[AnswerEvent]] = [[Text(0, piece, token(piece))] for piece in pieces]

    events = make_guarded(BLOCKING)(Source([[Opened(0)], *batches]))

    assert "A".startswith("".join(tokens_of(events)))
