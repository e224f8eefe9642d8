"""The frames of a stream, byte by byte: JSON for any text, one write for what comes together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Delta, FinishReason, Usage
from router.generation.merge import Batch, frame
from router.openai.chat import ChatFormat
from router.openai.completions import CompletionFormat
from router.openai.endpoint import Frames, Stamp
from router.transport.sse import DONE

STAMP = Stamp("id-1", 1_700_000_000, "fast")
FORMATS: list[ChatFormat | CompletionFormat] = [ChatFormat(), CompletionFormat()]
LAST = Delta("r", (), "", FinishReason.STOP, Usage(3, 2, 1))


def delta(text: str) -> Delta:
    return Delta("r", (1,), text)


def frames_of(form: ChatFormat | CompletionFormat, include_usage: bool = False) -> Frames:
    if isinstance(form, ChatFormat):
        request = form.parse(b'{"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}')
        return form.frames(request, STAMP, include_usage)
    return form.frames(form.parse(b'{"model": "fast", "prompt": "Hi"}'), STAMP, include_usage)


async def written(
    form: ChatFormat | CompletionFormat, batches: Sequence[Sequence[Delta]], include_usage: bool = False
) -> list[bytes]:
    """The writes that ``batches`` of one sequence become."""

    async def source() -> AsyncIterator[Batch]:
        for deltas in batches:
            yield 0, deltas

    return [body async for body in frame(source(), frames_of(form, include_usage), 1, include_usage)]


def parsed(body: bytes) -> list[dict[str, Any]]:
    assert body.endswith(b"\n\n")
    return [json.loads(each.removeprefix(b"data: ")) for each in body.split(b"\n\n") if each]


@given(st.text())
def test_any_text_survives_and_none_breaks_a_frame(text: str) -> None:
    for form in FORMATS:
        body = frames_of(form).text(0, text, None)
        assert body.count("\n") == 2
        assert body.isascii()  # so no proxy and no reader of lines can split it at U+2028 or the like
        (chunk,) = parsed(body.encode())
        choice = chunk["choices"][0]
        assert (choice["delta"]["content"] if "delta" in choice else choice["text"]) == text


@pytest.mark.parametrize("form", FORMATS, ids=["chat", "completions"])
async def test_deltas_that_arrive_together_leave_together_each_with_its_own_chunk(form: Any) -> None:
    writes = await written(form, [[delta("a")], [delta("b"), delta(""), delta("c"), LAST]])
    assert len(writes) == 3
    assert len(parsed(writes[0])) == (2 if form.id_prefix == "chatcmpl-" else 1)  # chat opens with the role
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed(writes[1])] == [None, None, "stop"]
    assert writes[2] == DONE


@pytest.mark.parametrize("form", FORMATS, ids=["chat", "completions"])
async def test_a_delta_without_text_costs_no_write(form: Any) -> None:
    writes = await written(form, [[delta("a")], [delta("")], [delta("")], [LAST]])
    assert len(writes) == 3


@pytest.mark.parametrize("form", FORMATS, ids=["chat", "completions"])
async def test_an_empty_answer_still_ends_properly(form: Any) -> None:
    *writes, done = await written(form, [[LAST]])
    assert parsed(writes[-1])[-1]["choices"][0]["finish_reason"] == "stop"
    assert done == DONE


@pytest.mark.parametrize("form", FORMATS, ids=["chat", "completions"])
async def test_the_usage_chunk_has_no_choices_and_all_counts(form: Any) -> None:
    *_, usage, _ = await written(form, [[delta("a")], [LAST]], include_usage=True)
    (chunk,) = parsed(usage)
    assert chunk["choices"] == []
    assert chunk["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
