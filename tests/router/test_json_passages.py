"""What is read of the JSON in requests, and what becomes of the JSON when its texts are changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api import Conversation, Message, ToolCall
from router.guard.request_texts import changed_json
from safety.api import Origin, Passage


def read(document: str, *, names: bool = False) -> str:
    """The text of the passage of a document; empty if there is none."""
    found = [""]

    def note(passage: Passage) -> str:
        found.append(passage.text)
        return passage.text

    changed_json(document, "f", Origin.TOOL, note, names=names)
    return found[-1]


def changed(document: str, old: str, new: str) -> Any:
    return json.loads(changed_json(document, "f", Origin.TOOL, lambda passage: passage.text.replace(old, new)))


@pytest.mark.parametrize(
    ("document", "seen"),
    [
        ('{"card": 5105105105105100}', "5105105105105100"),
        ('{"card": [1, 5105105105105100.0]}', "5105105105105100.0"),
        ('{"phone": 4915112345678}', "4915112345678"),
        ("5105105105105100", "5105105105105100"),
    ],
)
def test_a_number_is_read_as_it_is_written(document: str, seen: str) -> None:
    assert seen in read(document).split("\n")


@pytest.mark.parametrize("depth", [100, 400, 800, 5000])
def test_json_of_any_depth_is_read_and_changed(depth: int) -> None:
    document = "[" * depth + r'"\u0061lice and bob"' + "]" * depth

    assert "alice and bob" in read(document)
    assert "alice" not in changed_json(document, "f", Origin.USER, lambda each: each.text.replace("alice", "<NAME>"))


@pytest.mark.parametrize(
    "document", [r'{"to": "\u0061lice and bob"', r"to: \u0061lice and bob", r"\\u0061lice and bob"]
)
def test_an_escape_in_what_is_nearly_json_hides_no_letter(document: str) -> None:
    assert "alice and bob" in read(document)
    assert changed_json(document, "f", Origin.USER, lambda each: each.text) == document


def test_a_short_number_and_the_others_stay_as_they_are_written() -> None:
    document = '{"a": 1.50, "b": -0.0, "c": 1E3, "d": 123456, "text": "x", "card": 5105105105105100, "e": 12345678.10}'
    found = changed_json(document, "f", Origin.TOOL, lambda passage: passage.text.replace("5105105105105100", "<CARD>"))

    assert found == document.replace("5105105105105100", '"<CARD>"')
    assert "123456\n" not in read(document)


SECRETS = ["AKIAIOSFODNN7EXAMPLE", "DE89370400440532013000", "sk-1a2b3c4d5e6f7a8b9c0d", "user_5105105105105100"]


@pytest.mark.parametrize("value", SECRETS)
def test_a_secret_among_names_is_read(value: str) -> None:
    assert value in read(json.dumps({"type": "string", "enum": ["a_name", value]}), names=True)


@pytest.mark.parametrize("value", [*SECRETS, "call_5105105105105100"])
def test_a_secret_in_an_id_is_read(value: str) -> None:
    from router.guard.request_texts import Contexts, _conversation

    found: list[str] = []

    def note(passage: Passage) -> str:
        found.append(passage.text)
        return passage.text

    call = ToolCall("f", "{}", value)
    turns = Conversation((Message("assistant", "", (call,)), Message("tool", "x", tool_call_id=value)))
    _conversation(turns, note, Contexts(None, None))
    assert found.count(value) == 2


@pytest.mark.parametrize(
    "name", ["call_aB3dE5fG7hJ9kL1mN3pQ5rS7", "toolu_01A09q90qw90lq917835lq9", "get_weather", "int32", "a.b/c:d-2", ""]
)
def test_names_and_ids_are_not_read(name: str) -> None:
    assert not read(json.dumps({"type": name}), names=True)


def test_names_of_members_survive_where_the_whole_text_is_dropped() -> None:
    document = json.dumps([{"title": "One", "text": "two\nlines", "n": 12345678}])
    found = json.loads(changed_json(document, "f", Origin.DOCUMENT, lambda passage: "[Removed.]"))

    assert found == [{"title": "[Removed.]", "text": "", "n": 12345678}]
