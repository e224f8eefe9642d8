"""A second format and a second transport, each added here in a few lines: no room knows OpenAI's shapes or HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import httpx
import pytest

from engine.api import SamplingParams, Usage
from router.answer_events import AnswerEvent, Ended, Routed, Stamp, Text, ToolCallStart
from router.app_factory import build_app
from router.complete_answer import Answer
from router.endpoint_protocol import Endpoint
from router.errors import InvalidRequestError, RefusalError, refusal_of
from router.inference_request import Call, InferenceRequest
from router.openai.chat import ChatEndpoint
from router.pipeline import Pipeline
from router.pipeline_wiring import make_pipeline
from router.router_parts import RouterParts
from router.router_ports import RouterPorts
from tests.router.backend import WORDS, ScriptedBackend
from tests.router.served import CONFIG, KEY


class LineEndpoint:
    """A format of lines: ``TIER PROMPT`` in; ``CHOICE TEXT`` and ``CHOICE . REASON`` out."""

    def parse(self, body: bytes) -> InferenceRequest:
        model, space, prompt = body.decode().partition(" ")
        if not space:
            raise InvalidRequestError("A line has a tier and a prompt.", "invalid_line", "line")
        return InferenceRequest(model, [prompt], SamplingParams(max_tokens=8), "line", LineWriter, stream=True)

    def error(self, refusal: RefusalError) -> str:
        return f"! {refusal.kind} {refusal.field}: {refusal.message}"


class LineWriter:
    def __init__(self, stamp: Stamp) -> None:
        self.stamp = stamp

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        texts = [f"{event.choice} {event.text}" for event in events if isinstance(event, Text)]
        return texts + [f"{event.choice} . {event.reason}" for event in events if isinstance(event, Ended)]

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        return "\n".join(answer.text for answer in answers)


class MessageTransport:
    """A transport of messages, as WebSockets have: one in, one out for each chunk, errors as messages."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def receive(self, message: bytes, endpoint: Endpoint, key: str = KEY) -> list[str]:
        async def read(limit: int) -> bytes:
            return message

        sent: list[str] = []
        try:
            async with aclosing(self._pipeline.run(Call("id", f"Bearer {key}", read), endpoint)) as batches:
                [routed] = await anext(batches)
                assert isinstance(routed, Routed)
                writer = routed.writer(Stamp("id", 0, routed.tier))
                async for events in batches:
                    sent += writer.chunks(events)
        except Exception as error:  # noqa: BLE001 the outermost handler, as in router/app.py
            sent.append(endpoint.error(refusal_of(error)))
        return sent


def pipeline_of(backend: ScriptedBackend) -> Pipeline:
    """The pipeline as the application makes it."""
    return make_pipeline(CONFIG, RouterParts(CONFIG, backend, RouterPorts()))


@pytest.fixture
def transport() -> MessageTransport:
    return MessageTransport(pipeline_of(ScriptedBackend()))


async def test_a_format_of_its_own_is_served(transport: MessageTransport) -> None:
    sent = await transport.receive(b"fast Hi", LineEndpoint())
    assert sent == [*(f"0 {word}" for word in ("<Hi>", *WORDS)), "0 . stop"]


async def test_a_format_of_its_own_is_served_over_http_with_its_own_errors() -> None:
    app = build_app(CONFIG, ScriptedBackend(), endpoints={"/lines": LineEndpoint()})
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as http:
        answer = await http.post("/lines", content=b"fast Hi")
        assert answer.text.split("\n\n")[:2] == ["data: 0 <Hi>", f"data: 0 {WORDS[0]}"]
        refused = await http.post("/lines", content=b"fast")
        assert (refused.status_code, refused.text) == (400, "! invalid_request line: A line has a tier and a prompt.")


async def test_a_format_that_has_nothing_to_say_still_answers() -> None:
    class Silent(LineWriter):
        def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
            return []

    class SilentEndpoint(LineEndpoint):
        def parse(self, body: bytes) -> InferenceRequest:
            return replace(super().parse(body), writer=Silent)

    app = build_app(CONFIG, ScriptedBackend(), endpoints={"/lines": SilentEndpoint()})
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as http:
        answer = await http.post("/lines", content=b"fast Hi")
        assert (answer.status_code, answer.text) == (200, "")


async def test_openai_s_format_is_served_over_another_transport(transport: MessageTransport) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    *chunks, done = await transport.receive(json.dumps(body).encode(), ChatEndpoint())
    texts = [json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(texts) == "".join(WORDS)
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("message", "key", "error"),
    [
        (b"fast", KEY, "! invalid_request line: A line has a tier and a prompt."),
        (b"nobody Hi", KEY, "! not_found model: The model 'nobody' does not exist. Available: fast, balanced, "),
        (b"fast Hi", "sk-wrong", "! unauthenticated None: Incorrect API key provided."),
    ],
)
async def test_refusals_reach_any_format(transport: MessageTransport, message: bytes, key: str, error: str) -> None:
    [sent] = await transport.receive(message, LineEndpoint(), key)
    assert sent.startswith(error)


async def test_a_transport_that_stops_reading_frees_the_generation() -> None:
    backend = ScriptedBackend(stall_at=3)
    task = asyncio.ensure_future(MessageTransport(pipeline_of(backend)).receive(b"fast Hi", LineEndpoint()))
    for _ in range(30):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.closed == 1


def test_events_of_tool_calls_are_no_business_of_a_format_without_them() -> None:
    assert LineWriter(Stamp("id", 0, "fast")).chunks([ToolCallStart(0, 0, "call_1", "f")]) == []
    assert partial(LineWriter)(Stamp("id", 0, "fast")).whole([], Usage(0, 0, 0)) == ""
