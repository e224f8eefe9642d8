"""The messages of a stream, byte by byte: JSON for any text, one write for what comes together."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Delta, FinishReason, SamplingParams, Usage
from router.answer_events import AnswerEvent, AnswerWriter, Finished, Stamp, Text
from router.generation.answer_event_builder import AnswerEventBuilder
from router.openai.chat import ChatEndpoint
from router.openai.common_response import DONE
from router.openai.completions import CompletionEndpoint
from router.transport.http_exchange import HttpExchange

STAMP = Stamp("id-1", 1_700_000_000, "fast")
CHAT, COMPLETIONS = ChatEndpoint(), CompletionEndpoint()
ENDPOINTS: list[ChatEndpoint | CompletionEndpoint] = [CHAT, COMPLETIONS]
LAST = Delta("r", (), "", FinishReason.STOP, Usage(3, 2, 1))


def delta(text: str) -> Delta:
    return Delta("r", (1,), text)


def writer_of(endpoint: ChatEndpoint | CompletionEndpoint, include_usage: bool = False) -> AnswerWriter:
    asked = {"messages": [{"role": "user", "content": "Hi"}]} if endpoint is CHAT else {"prompt": "Hi"}
    streamed = {"stream": True, "stream_options": {"include_usage": include_usage}}
    return endpoint.parse(json.dumps({"model": "fast"} | asked | streamed).encode()).writer(STAMP)


async def written(
    endpoint: ChatEndpoint | CompletionEndpoint, batches: Sequence[Sequence[Delta]], include_usage: bool = False
) -> list[bytes]:
    """The writes that ``batches`` of one sequence become."""
    writer = writer_of(endpoint, include_usage)
    prompt = AnswerEventBuilder(0, SamplingParams())
    sent: list[bytes] = []

    async def events() -> AsyncGenerator[Sequence[AnswerEvent], None]:
        for deltas in batches:
            yield prompt.push(deltas)
        assert prompt.usage is not None
        yield [Finished(prompt.usage)]

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body of the request is not read")

    async def send(message: Any) -> None:
        if body := message.get("body"):
            sent.append(body)

    exchange = HttpExchange({"type": "http", "path": "/", "method": "POST", "headers": []}, receive, send)
    await exchange.stream(events(), writer.chunks)
    return sent


def parsed(body: bytes) -> list[dict[str, Any]]:
    assert body.endswith(b"\n\n")
    bodies = [each.removeprefix(b"data: ") for each in body.split(b"\n\n") if each]
    return [json.loads(each) for each in bodies if each != DONE.encode()]


@given(st.text())
def test_any_text_survives_and_none_breaks_a_frame(text: str) -> None:
    for endpoint in ENDPOINTS:
        (body,) = writer_of(endpoint).chunks([Text(0, text)])
        assert "\n" not in body
        assert body.isascii()  # so no proxy and no reader of lines can split it at U+2028 or the like
        choice = json.loads(body)["choices"][0]
        assert (choice["delta"]["content"] if "delta" in choice else choice["text"]) == text


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=["chat", "completions"])
async def test_deltas_that_arrive_together_leave_together_each_with_its_own_chunk(endpoint: Any) -> None:
    writes = await written(endpoint, [[delta("a")], [delta("b"), delta(""), delta("c"), LAST]])
    assert len(writes) == 3
    assert len(parsed(writes[0])) == (2 if endpoint is CHAT else 1)  # chat opens with the role
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed(writes[1])] == [None, None, "stop"]
    assert writes[2] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=["chat", "completions"])
async def test_a_delta_without_text_costs_no_write(endpoint: Any) -> None:
    writes = await written(endpoint, [[delta("a")], [delta("")], [delta("")], [LAST]])
    assert len(writes) == 3


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=["chat", "completions"])
async def test_an_empty_answer_still_ends_properly(endpoint: Any) -> None:
    *writes, done = await written(endpoint, [[LAST]])
    assert parsed(writes[-1])[-1]["choices"][0]["finish_reason"] == "stop"
    assert done == b"data: [DONE]\n\n"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=["chat", "completions"])
async def test_the_usage_chunk_has_no_choices_and_all_counts(endpoint: Any) -> None:
    *_, last = await written(endpoint, [[delta("a")], [LAST]], include_usage=True)
    (chunk,) = parsed(last)
    assert chunk["choices"] == []
    assert chunk["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
