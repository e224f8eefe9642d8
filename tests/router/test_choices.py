"""Several choices reach the openai client, whole and streamed alike."""

from __future__ import annotations

from typing import Any

import pytest

from tests.router.backend import WORDS
from tests.router.served import Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = "".join(WORDS)


def test_a_chat_answer_has_as_many_as_were_asked_for(served: Served) -> None:
    answer = served.openai.chat.completions.create(**CHAT, n=3)

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == [TEXT, f"1{TEXT}", f"2{TEXT}"]
    assert len(served.backend.requests) == 1


def test_streamed_choices_are_told_apart(served: Served) -> None:
    texts, roles, ends = ["", "", ""], 0, []
    for chunk in served.openai.chat.completions.create(**CHAT, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += choice.delta.role is not None
            if choice.finish_reason is not None:
                ends.append(choice.index)

    assert texts == [TEXT, f"1{TEXT}", f"2{TEXT}"]
    assert roles == 3
    assert sorted(ends) == [0, 1, 2]


def test_choices_of_several_prompts_are_numbered_in_a_row(served: Served) -> None:
    answer = served.openai.completions.create(model="fast", prompt=["a", "b"], n=2)

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [f"<a>{TEXT}", f"1<a>{TEXT}", f"<b>{TEXT}", f"1<b>{TEXT}"]


def test_the_best_of_several_are_chosen(served: Served) -> None:
    answer = served.openai.completions.create(model="fast", prompt="a", best_of=3)

    # The scripted choices become more probable with their number.
    assert [choice.text for choice in answer.choices] == [f"2<a>{TEXT}"]
    assert answer.choices[0].logprobs is None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ["a"] * 50, "n": 3}, "n"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
    ],
)
def test_what_cannot_be_is_refused_by_name(served: Served, change: dict[str, Any], param: str) -> None:
    answer = served.http.post("/v1/completions", json={"model": "fast", "prompt": "a", **change})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
