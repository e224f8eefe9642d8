"""What is read ahead of the client: checks go on while it does not read, within a bound, and a halt still stops all."""

from __future__ import annotations

import asyncio

import pytest

from router.answer_events import AnswerEvent, Opened, Text
from router.guard.moderated_answers import MAX_UNREAD, moderate
from tests.router.guarded_answers import Guarded, Source, answer, ends, text_of
from tests.safety.scripted import ScriptedClassifier


def test_held_text_is_sent_although_nothing_more_is_generated() -> None:
    async def run() -> None:
        source = Source([[Opened(0)], [Text(0, "Hello")], [Text(0, " there")]], stall=True)
        guard = Guarded(classifier=ScriptedClassifier(delay_s=0.001)).guard
        batches = moderate(source.events(), guard, source.meter, [0])
        text = ""
        async with asyncio.timeout(5):
            while text != "Hello there":
                text += text_of(await anext(batches))
        await batches.aclose()
        assert source.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_a_halt_stops_the_engine_while_the_client_does_not_read() -> None:
    async def run() -> None:
        source = Source(answer("Hello ", "bomb", *["more "] * 1000), stall=True)
        guard = Guarded(classifier=ScriptedClassifier(["bomb"])).guard
        batches = moderate(source.events(), guard, source.meter, [0])
        await anext(batches)
        for _ in range(50):  # the client takes nothing
            await asyncio.sleep(0.001)
        assert source.closed
        assert source.yielded < 200
        rest = [event for batch in [batch async for batch in batches] for event in batch]
        assert "bomb" not in text_of(rest)
        assert ends(rest) == {0: "content_filter"}

    asyncio.run(run())


@pytest.mark.parametrize("gate", [None, asyncio.Event()], ids=["checks end", "no check ends"])
def test_no_more_than_so_many_batches_are_read_ahead_of_a_client_that_does_not_read(gate: asyncio.Event | None) -> None:
    async def run() -> None:
        source = Source(answer(*["more "] * 2000), stall=True)
        classifier = ScriptedClassifier(delay_s=0.02, gate=gate)
        batches = moderate(source.events(), Guarded(classifier=classifier).guard, source.meter, [0])
        await anext(batches)
        await asyncio.sleep(0.3)  # the client takes nothing
        assert source.yielded <= MAX_UNREAD + 1
        await batches.aclose()

    asyncio.run(run())


def test_a_client_that_waits_makes_room_while_all_is_held() -> None:
    async def run() -> None:
        gate = asyncio.Event()
        source = Source(answer(*["more "] * (3 * MAX_UNREAD)), stall=True)
        guarded = Guarded(classifier=ScriptedClassifier(gate=gate))
        batches = moderate(source.events(), guarded.guard, source.meter, [0])

        async def read() -> list[AnswerEvent]:
            return [event for batch in [batch async for batch in batches] for event in batch]

        reading = asyncio.create_task(read())
        async with asyncio.timeout(60):
            await source.stalled.wait()
            gate.set()
            assert text_of(await reading) == "more " * (3 * MAX_UNREAD)

    asyncio.run(run())


def test_the_next_text_is_checked_while_the_client_does_not_read() -> None:
    async def run() -> None:
        classifier = ScriptedClassifier(delay_s=0.001)
        source = Source(answer("One. ", "Two, and the rest. "))
        batches = moderate(source.events(), Guarded(classifier=classifier).guard, source.meter, [0])
        await anext(batches)
        await asyncio.sleep(0.05)
        rest = await anext(batches)  # all of it, at once
        assert text_of(rest) == "One. Two, and the rest. "
        assert ends(rest) == {0: "stop"}
        assert [batch async for batch in batches] == []

    asyncio.run(run())
