"""Log probabilities reach the openai client, whole and streamed alike."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from engine.api import FinishReason, Logprob, TokenLogprobs, Usage
from router.answer_events import AnswerEvent, Stamp
from router.complete_answer import Answer
from router.openai.chat import ChatEndpoint
from router.openai.logprobs import TextOffset, text_logprobs, text_of
from router.routes.whole_bodies import WholeBodies
from tests.router.backend import WORDS
from tests.router.served import Served

TEXT: dict[str, Any] = {"model": "fast", "prompt": "Hi"}
CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}


def test_a_chat_answer_has_one_for_each_token(served: Served) -> None:
    answer = served.openai.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2)

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [one.token for one in logprobs.content] == list(WORDS)
    assert [one.logprob for one in logprobs.content] == [-0.5, -1.0, -1.5, -2.0, -2.5]
    assert bytes(logprobs.content[2].bytes or ()).decode() == WORDS[2]
    assert [other.token for other in logprobs.content[0].top_logprobs] == ["other0", "other1"]


def test_a_streamed_chat_answer_has_the_same(served: Served) -> None:
    whole = served.openai.chat.completions.create(**CHAT, logprobs=True, top_logprobs=1)
    chunks = list(served.openai.chat.completions.create(**CHAT, logprobs=True, top_logprobs=1, stream=True))

    told = [
        one
        for chunk in chunks
        if chunk.choices and chunk.choices[0].logprobs is not None
        for one in chunk.choices[0].logprobs.content or ()
    ]
    assert whole.choices[0].logprobs is not None
    assert told == whole.choices[0].logprobs.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "".join(WORDS)


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_completion_has_them_in_lists(served: Served, stream: bool) -> None:
    answer: Any = served.openai.completions.create(model="fast", prompt="Hi", logprobs=2, stream=stream)
    parts = [part.choices[0] for part in (answer if stream else [answer]) if part.choices]

    told = [part.logprobs for part in parts if part.logprobs is not None]
    tokens = [token for one in told for token in one.tokens]
    offsets = [at for one in told for at in one.text_offset]
    text = "".join(part.text for part in parts)
    assert tokens == ["<Hi>", *WORDS]
    assert [text[at : at + len(token)] for at, token in zip(offsets, tokens, strict=True)] == tokens
    assert [value for one in told for value in one.token_logprobs] == [-0.5, -1.0, -1.5, -2.0, -2.5, -3.0]
    assert told[0].top_logprobs[0] == {"other0": -1.0, "other1": -2.0, "<Hi>": -0.5}


def test_without_the_wish_there_are_none(served: Served) -> None:
    assert served.openai.chat.completions.create(**CHAT).choices[0].logprobs is None
    assert served.openai.completions.create(model="fast", prompt="Hi").choices[0].logprobs is None


def test_a_prompt_is_scored_as_vllm_tells_it(served: Served) -> None:
    told = {"8": {"logprob": -4.0, "rank": 9, "decoded_token": "mpt"}}
    told |= {"100": {"logprob": -1.0, "rank": 1, "decoded_token": "other0"}}

    chat = served.http.post("/v1/chat/completions", json=CHAT | {"prompt_logprobs": 1}).json()
    text = served.http.post("/v1/completions", json=TEXT | {"prompt_logprobs": 1}).json()

    assert chat["prompt_logprobs"] == [None, told]
    assert text["choices"][0]["prompt_logprobs"] == [None, told]
    assert "prompt_logprobs" not in served.http.post("/v1/chat/completions", json=CHAT).json()


@pytest.mark.parametrize(("prompt", "said"), [("Prompt", "Prompt<Prompt>"), ([7, 8], "Prompt<(7, 8)>")])
def test_an_echo_is_the_prompt_and_its_log_probabilities_before_the_answer(
    served: Served, prompt: Any, said: str
) -> None:
    answer = served.openai.completions.create(model="fast", prompt=prompt, echo=True, logprobs=1, n=1)

    choice = answer.choices[0]
    assert choice.text.startswith(said)
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert choice.logprobs.tokens[:2] == ["Pro", "mpt"]
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[:3] == [None, -4.0, -0.5]
    assert choice.logprobs.text_offset is not None
    assert choice.logprobs.text_offset[:3] == [0, 3, 6]


def test_an_echo_without_log_probabilities_is_text_alone(served: Served) -> None:
    words = served.openai.completions.create(model="fast", prompt="Prompt", echo=True).choices[0]
    tokens = served.openai.completions.create(model="fast", prompt=[7, 8], echo=True).choices[0]

    assert words.text.startswith("Prompt<Prompt>")
    assert tokens.text.startswith("Prompt<(7, 8)>")
    assert words.logprobs is None
    assert tokens.logprobs is None
    assert served.backend.requests[0].sampling.prompt_logprobs is None


@pytest.mark.parametrize("field", [{"echo": True}, {"prompt_logprobs": 1}])
def test_what_belongs_before_an_answer_is_not_streamed(served: Served, field: dict[str, Any]) -> None:
    answer = served.http.post("/v1/completions", json=TEXT | field | {"stream": True})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(field))


def test_characters_of_several_tokens_are_counted_once() -> None:
    place = TextOffset()
    pieces = [b"a", *(bytes([byte]) for byte in "🎉".encode()), b"b"]

    assert [place.next(piece) for piece in pieces] == [0, 1, 1, 1, 1, 2]


def scored(name: str, added: str | None = None) -> TokenLogprobs:
    return TokenLogprobs(Logprob(1, name, name.encode(), -1.0), (), 1, None if added is None else added.encode())


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([scored("a"), scored("<|end|>", ""), scored(" b"), scored("<|bos|>", ""), scored("c")], "a bc"),
        ([scored("<s>", ""), scored(" What", "What"), scored(" is"), scored(" it")], "What is it"),
        ([scored(" it"), scored("</s>", "")], " it"),
    ],
)
def test_text_at_an_offset_begins_with_what_the_token_adds(tokens: list[TokenLogprobs], text: str) -> None:
    told = text_logprobs(tokens, TextOffset())

    assert text_of(tokens) == text
    assert told["tokens"] == [token.chosen.text for token in tokens]  # special ones by their names
    for token, at in zip(tokens, told["text_offset"], strict=True):
        assert text[at:].startswith(token.text_bytes.decode())
    added = "".join(token.text_bytes.decode() for token in tokens)
    assert added == text


def test_what_cannot_be_had_is_the_requests_own_fault(served: Served) -> None:
    served.backend.outcome = FinishReason.REFUSED

    answer = served.http.post("/v1/chat/completions", json=CHAT)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsatisfiable"


async def test_many_of_them_hold_no_other_request_up() -> None:
    """A second of ``json.dumps`` is one in which no stream of the router gets a token."""
    token = TokenLogprobs(Logprob(1, "a", b"a", -0.5), tuple(Logprob(n, "b", b"b", -1.0) for n in range(20)), 1)
    answer = Answer(0, 0, "a" * 4000, FinishReason.STOP, logprobs=(token,) * 4000)
    body = {**CHAT, "logprobs": True, "top_logprobs": 20}
    writer = ChatEndpoint().parse(json.dumps(body).encode()).writer(Stamp("id", 0, "fast"))
    writing = asyncio.create_task(WholeBodies().write(writer, [answer], Usage(1, 4000, 0)))
    turns = 0
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 10
    assert len(json.loads(await writing)["choices"][0]["logprobs"]["content"]) == 4000


class SlowWriter:
    """A writer of bodies that waits. ``begun`` is the number of bodies that it was asked for."""

    def __init__(self) -> None:
        self.begun = 0
        self.writing = False
        self.go_on = threading.Event()

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        raise AssertionError("the answer is not streamed")

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        self.begun += 1
        self.writing = True
        assert self.go_on.wait(10)
        return "{}"


TOKEN = TokenLogprobs(Logprob(1, "a", b"a", -0.5), (), 1)
SCORED = Answer(0, 0, "a", FinishReason.STOP, logprobs=(TOKEN,) * 200)


async def test_they_are_written_for_one_request_at_a_time_and_to_the_end() -> None:
    """A thread cannot be stopped: one whose client has left would run beside the next."""
    bodies, writer = WholeBodies(), SlowWriter()
    left, next_one = (asyncio.create_task(bodies.write(writer, [SCORED], Usage(1, 1, 0))) for _ in range(2))
    async with asyncio.timeout(10):
        while not writer.writing:  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        left.cancel()
        await asyncio.sleep(0.05)
        beside = writer.begun
        writer.go_on.set()
        text = await next_one

    assert left.cancelled()
    assert (beside, writer.begun, text) == (1, 2, "{}")
