"""The figures of the bench of resumed streams, and its client at a router that answers wrongly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import httpx
import pytest

from load_tests.chaos.mix import Request, mix
from load_tests.chaos.transcript import Transcript
from load_tests.resume.__main__ import make_parser
from load_tests.resume.client import CutStream, run_cut
from load_tests.resume.cuts import LATEST, cut_streams
from load_tests.resume.report import Wave, clean, report

EVENTS = [
    '{"choices": [{"index": 0, "delta": {"content": "one "}}]}',
    '{"choices": [{"index": 0, "delta": {"content": "two"}, "finish_reason": "stop"}]}',
    '{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}',
    "[DONE]",
]
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


def whole(text: str = "one two") -> Transcript:
    made = Transcript()
    for data in [event.replace("two", text[4:]) for event in EVENTS]:
        made.take(data, 0.0)
    made.close()
    return made


def sse(first: int, *events: str) -> bytes:
    return "".join(f"id: {number}\ndata: {data}\n\n" for number, data in enumerate(events, first)).encode()


async def cut_and_resumed(rest: bytes, status: int = 200) -> CutStream:
    """A stream that is cut after one event, at a router that sends ``rest`` to those who resume."""

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, content=sse(1, *EVENTS), headers={"x-manta-stream": "s"})
        assert request.headers["last-event-id"] == "1"
        return httpx.Response(status, content=rest)

    stream, switched = CutStream(Request("greedy", {}), after=1), asyncio.Event()
    switched.set()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://test") as http:
        await run_cut(stream, http, http, switched, 5)
    return stream


async def test_a_stream_that_is_resumed_whole_is_that_of_an_undisturbed_client() -> None:
    stream = await cut_and_resumed(sse(2, *EVENTS[1:]))
    figures = report([Wave([stream], [whole()], (0, 1), [404], [410])])
    assert figures["resumed"] == 1
    assert figures["examples"] == []
    assert clean(figures)


@pytest.mark.parametrize(
    ("rest", "status", "said"),
    [
        (sse(1, *EVENTS), 200, "event 1 came after event 1"),
        (sse(3, *EVENTS[2:]), 200, "event 3 came after event 1"),
        (sse(2, EVENTS[1]), 200, "before [DONE]"),
        (b"", 410, "status 410"),
        (b"data: [DONE]\n\n", 200, "not an event with an id"),
    ],
)
async def test_what_is_lost_repeated_or_refused_is_a_failure(rest: bytes, status: int, said: str) -> None:
    stream = await cut_and_resumed(rest, status)
    figures = report([Wave([stream], [whole()], (0, 1), [404], [410])])
    assert figures["failed"] == 1
    assert said in figures["examples"][0]
    assert not clean(figures)


async def test_another_text_is_a_difference() -> None:
    stream = await cut_and_resumed(sse(2, *EVENTS[1:]))
    figures = report([Wave([stream], [whole("one too")], (0, 1), [404], [410])])
    assert (figures["failed"], figures["different"]) == (0, 1)
    assert not clean(figures)


@pytest.mark.parametrize(
    ("led", "foreign", "late"), [((1, 0), 404, 410), ((0, 1), 200, 410), ((0, 1), 404, 200), ((0, 0), 404, 410)]
)
async def test_the_same_router_a_foreign_reader_and_one_after_the_window_are_faults(
    led: tuple[int, int], foreign: int, late: int
) -> None:
    stream = await cut_and_resumed(sse(2, *EVENTS[1:]))
    assert not clean(report([Wave([stream], [whole()], led, [foreign], [late])]))


def test_cuts_are_random_by_their_seed_and_within_the_answer() -> None:
    requests = mix(50, 20)
    expected = [Transcript(times=[0.0] * 100)] * 50
    cuts = [each.after for each in cut_streams(requests, expected, random.Random(1))]
    assert cuts == [each.after for each in cut_streams(requests, expected, random.Random(1))]
    assert len(set(cuts)) > 25
    assert max(cuts) <= 100 * LATEST


def test_kinds_that_send_nothing_before_their_end_are_refused() -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--kinds", "beams"])
