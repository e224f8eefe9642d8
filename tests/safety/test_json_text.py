"""JSON that arrives in pieces: what checks read of it, and that replacements leave valid JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safety.api import Action, Origin
from safety.streaming.json_moderator import JsonModerator
from safety.streaming.json_text import MAX_LITERAL, JsonText
from safety.streaming.moderator import StreamModerator
from safety.streaming.plan import StreamPlan
from tests.safety.scripted import needles
from tests.safety.streams import pieces_of

SECRET = 'k\n"e😀'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab\n"\\é😀/', max_size=12) | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3) | st.just(SECRET), inner, max_size=3)
    ),
    max_leaves=8,
)
CUTS = st.lists(st.integers(0, 300), max_size=20)


def redacted(raw: str, cuts: list[int], *secrets: str) -> str:
    """What is sent of JSON in pieces."""
    inner = StreamModerator(
        Origin.TOOL_ARGUMENTS, StreamPlan((needles(Action.REDACT, *secrets, kind="KEY"),)), lambda: None
    )
    moderator = JsonModerator(inner)
    sent = [moderator.push(piece).text for piece in pieces_of(raw, cuts)]
    last = moderator.push("", final=True)
    assert last.done
    assert last.end == len(raw)
    return "".join((*sent, last.text))


def without(value: Any, secret: str) -> Any:
    """The value with the secret replaced in all strings."""
    if isinstance(value, str):
        return value.replace(secret, "<KEY>")
    if isinstance(value, dict):
        return {without(name, secret): without(each, secret) for name, each in value.items()}
    return [without(each, secret) for each in value] if isinstance(value, list) else value


@given(VALUES, CUTS, st.booleans())
@example([SECRET, {"a": SECRET + SECRET}], list(range(60)), True)
def test_strings_are_redacted_decoded_and_stay_json(value: Any, cuts: list[int], ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only)

    assert json.loads(redacted(raw, cuts, SECRET)) == without(value, SECRET)


@given(VALUES, CUTS, st.booleans())
def test_clean_json_is_unchanged_to_the_byte(value: Any, cuts: list[int], ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=1)

    assert redacted(raw, cuts, "not in it") == raw


@pytest.mark.parametrize(
    ("raw", "secrets", "sent"),
    [
        ('{"card": 4111111111111111}', ["4111111111111111"], '{"card": "<KEY>"}'),
        ('{"a": 14111, "b": 4111}', ["4111"], '{"a": "<KEY>", "b": "<KEY>"}'),
        ('{"mail": "\\u0061lice@x.org"}', ["alice@x.org"], '{"mail": "<KEY>"}'),
        ('{"mail": "al\\/ice"}', ["al/ice"], '{"mail": "<KEY>"}'),
        ('["one", "two"]', ['ne", "tw'], '["o<KEY>", "o"]'),
        ('["one", 22]', ['ne", 2'], '["o<KEY>", ""]'),
        ('{"a": "x\\ud83d"}', ["x\ufffd"], '{"a": "<KEY>"}'),
        ('{"a": "x\\ud83d\\n"}', ["\ufffd\n"], '{"a": "x<KEY>"}'),
        ("no JSON \\ at all", ["JSON"], 'no "<KEY>" \\ at all'),
        ('{"cut": "off\\u00', ["off"], '{"cut": "<KEY>\\u00'),
    ],
    ids=[
        "number",
        "part",
        "escape",
        "slash",
        "strings",
        "string-number",
        "half-pair",
        "half-and-more",
        "no-json",
        "cut-off",
    ],
)
def test_redactions_in_json(raw: str, secrets: list[str], sent: str) -> None:
    for cuts in ([], list(range(len(raw)))):
        assert redacted(raw, cuts, *secrets) == sent


def test_a_word_that_no_json_has_is_not_held_to_the_end() -> None:
    text, sent = JsonText(), ""
    for piece in range(0, 5 * MAX_LITERAL, 7):
        text.push("abcdefg")
        sent += text.write(piece + 7, ())[0]

    assert len(sent) >= 4 * MAX_LITERAL
    text.push("", final=True)
    sent += text.write(10 * MAX_LITERAL, ())[0]
    assert sent == "abcdefg" * (len(sent) // 7)


def test_the_readable_text_has_each_escape_as_its_character() -> None:
    text = JsonText()

    assert text.push('{"a": "\\ud8') == '{"a": "'
    assert text.push("3d\\ude00\\") == "😀"
    assert text.push('t"}') == '\t"}'
