"""docs/api.md tells the truth: it names every field, and each bad value in it is refused by the field's name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.config.profiles import PROFILES
from router.openai.chat import ChatRequest
from router.openai.completions import CompletionRequest
from tests.router.served import KEY, Served

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "fast", "prompt": "Hi"}
ROW = re.compile(r"^\| `(\w+)` \| .* \| `([^|]+)` \|$", re.MULTILINE)


def rows(start: str, end: str) -> dict[str, Any]:
    """Fields of one table and their bad values."""
    part = DOCUMENT[DOCUMENT.index(start) : DOCUMENT.index(end) if end else None]
    return {name: json.loads(value) for name, value in ROW.findall(part)}


BOTH = rows("Both endpoints", "Order, which")
CHATS = rows("Chat completions only", "Completions only")
TEXTS = rows("Completions only", "")


def test_every_field_is_in_the_table() -> None:
    assert {*BOTH, *CHATS} == set(ChatRequest.model_fields)
    assert {*BOTH, *TEXTS} == set(CompletionRequest.model_fields)


@pytest.mark.parametrize(
    ("path", "base", "name", "value"),
    [
        *(("chat/completions", CHAT, *row) for row in (BOTH | CHATS).items()),
        *(("completions", TEXT, *row) for row in (BOTH | TEXTS).items()),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(
    served: Served, path: str, base: dict[str, Any], name: str, value: Any
) -> None:
    answer = httpx.post(
        f"{served.url}/v1/{path}", json=base | {name: value}, headers={"authorization": f"Bearer {KEY}"}
    )

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert re.split(r"[.\[]", error["param"])[0] == name


def test_profiles_are_those_of_the_table() -> None:
    told = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (\d+) \| ([\d.]+) \|$", DOCUMENT, re.MULTILINE)

    assert {name: (float(t), int(k), float(p)) for name, t, k, p in told} == {
        name: (profile.temperature, profile.top_k, profile.top_p) for name, profile in PROFILES.items()
    }


def test_a_profile_fills_in_what_the_request_leaves_open(served: Served) -> None:
    extra = {"profile": "creative", "min_p": 0.1, "logit_bias": {"7": -2.5}, "bad_words": ["no"]}
    answer = served.openai.chat.completions.create(**CHAT, temperature=0.2, extra_body=extra)

    [request] = served.backend.requests
    sampling = request.sampling
    assert answer.choices[0].message.content
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.2, 80, 0.95)
    assert (sampling.min_p, sampling.logit_bias, sampling.bad_words) == (0.1, {7: -2.5}, ("no",))
