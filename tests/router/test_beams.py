"""Beam search by the fields that vLLM's users know."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api import BeamSearch
from tests.router.engines import EngineBackend
from tests.router.served import Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "What is prefill?"}]}


@pytest.mark.parametrize(
    ("fields", "beam"),
    [
        ({"n": 3}, BeamSearch(3)),
        ({"n": 2, "best_of": 5}, BeamSearch(5)),
        ({"temperature": 0, "best_of": 4, "length_penalty": 0.5}, BeamSearch(4, 0.5)),
        ({"best_of": 4, "early_stopping": True}, BeamSearch(4, 1.0, True)),
        ({"best_of": 4, "early_stopping": "never", "do_sample": True}, BeamSearch(4, 1.0, "never", True)),
    ],
    ids=str,
)
def test_the_fields_make_a_search(served: Served, fields: dict[str, Any], beam: BeamSearch) -> None:
    answer = served.http.post("/v1/chat/completions", json=CHAT | fields | {"use_beam_search": True})

    assert answer.status_code == 200, answer.text
    [request] = served.backend.requests
    assert request.sampling.beam == beam
    assert (request.sampling.n, request.sampling.best_of) == (fields.get("n", 1), None)


def test_answers_are_the_same_streamed_and_whole(served: Served, backend: EngineBackend) -> None:
    served.backend = backend  # type: ignore[assignment]
    asked: dict[str, Any] = {"n": 3, "max_tokens": 20, "extra_body": {"use_beam_search": True, "best_of": 4}}

    whole = served.openai.chat.completions.create(**CHAT, **asked)
    texts, reasons = ["", "", ""], ["", "", ""]
    for chunk in served.openai.chat.completions.create(**CHAT, **asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]

    assert [choice.message.content for choice in whole.choices] == texts
    assert [choice.finish_reason for choice in whole.choices] == reasons
    assert len(set(texts)) == 3
    assert whole.usage is not None
    assert 3 < whole.usage.completion_tokens <= 60


def test_fewer_answers_than_were_asked_for_belong_to_their_prompts(served: Served, backend: EngineBackend) -> None:
    served.backend = backend  # type: ignore[assignment]
    asked = {"use_beam_search": True, "guided_choice": ["yes"], "echo": True, "n": 4, "prompt": ["aaa", "bbb"]}

    found = served.http.post("/v1/completions", json={"model": "fast", **asked}).json()["choices"]

    assert 2 <= len(found) < 8
    assert {(choice["index"] // 4, choice["text"]) for choice in found} == {(0, "aaayes"), (1, "bbbyes")}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"length_penalty": 1.0}, "length_penalty"),
        ({"early_stopping": True}, "early_stopping"),
        ({"do_sample": False}, "do_sample"),
        ({"use_beam_search": True, "n": 33}, "n"),
        ({"use_beam_search": True, "best_of": 64}, "best_of"),
        ({"use_beam_search": True, "best_of": 2, "n": 3}, "n"),
        ({"use_beam_search": True, "temperature": 0.7}, "temperature"),
        ({"use_beam_search": True, "top_p": 0.7}, "top_p"),
        ({"use_beam_search": True, "do_sample": True, "temperature": 0}, "temperature"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_by_its_name(served: Served, fields: dict[str, Any], param: str) -> None:
    answer = served.http.post("/v1/chat/completions", json=CHAT | fields)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert served.backend.requests == []
