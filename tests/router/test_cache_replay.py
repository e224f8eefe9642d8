"""A hit comes again as the generation came: streamed in pieces, with its tool calls and its reasoning."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.router.cached import Cached, text_of


async def test_a_hit_is_streamed_like_a_generation(cached: Cached) -> None:
    whole = await cached.ask()
    streamed = await cached.ask(stream=True, stream_options={"include_usage": True})
    assert streamed.headers["x-manta-cache"] == "exact; age=0"
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == text_of(whole)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == whole.json()["usage"]
    assert streamed.text.rstrip().endswith("data: [DONE]")


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
CALL = ("<tool_call>", '\n{"name": "look_up", "arguments": ', '{"of": "quark"}', "}\n</tool_call>")


def deltas_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The deltas of a stream with one choice."""
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


async def test_a_tool_call_comes_again_under_an_id_of_its_own(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.router.backend.WORDS", CALL)
    first, second = [await cached.ask(tools=[TOOL]) for _ in range(2)]
    streamed = await cached.ask(tools=[TOOL], stream=True)
    assert (second.headers["x-manta-cache"], streamed.headers["x-manta-cache"]) == ("exact; age=0",) * 2
    ours, theirs = (answer.json()["choices"][0] for answer in (first, second))
    assert theirs["finish_reason"] == ours["finish_reason"] == "tool_calls"
    (call,), (again,) = ours["message"]["tool_calls"], theirs["message"]["tool_calls"]
    assert again["function"] == call["function"] == {"name": "look_up", "arguments": '{"of": "quark"}'}
    assert again["id"] != call["id"]
    pieces = [piece for delta in deltas_of(streamed) for piece in delta.get("tool_calls") or ()]
    assert "".join(piece["function"].get("arguments") or "" for piece in pieces) == '{"of": "quark"}'
    assert pieces[0]["function"]["name"] == "look_up"


async def test_reasoning_comes_again_whole_and_streamed(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM's issue 32068: hits that are streamed lose it."""
    monkeypatch.setattr("tests.router.backend.WORDS", ("<think>", "So it is", "</think>", "Yes."))
    first, second = [await cached.ask() for _ in range(2)]
    streamed = await cached.ask(stream=True)
    assert second.json()["choices"] == first.json()["choices"]
    message = first.json()["choices"][0]["message"]
    name = next(name for name in message if name.startswith("reasoning"))
    assert "So it is" in message[name]
    assert "".join(delta.get(name) or "" for delta in deltas_of(streamed)) == message[name]


async def test_a_long_hit_is_streamed_in_pieces(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM's issue 11145: a hit is one piece, however long."""
    text = "Some words of a long answer — with an emoji 🎉 here and there. " * 40
    monkeypatch.setattr("tests.router.backend.WORDS", (text,))
    await cached.ask()
    pieces = [delta["content"] for delta in deltas_of(await cached.ask(stream=True)) if delta.get("content")]
    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= 256
