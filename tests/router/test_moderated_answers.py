"""The events of answers under a guard: nothing flagged is sent, the rest is complete and in order, a halt stops all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import FinishReason, Logprob, TokenLogprobs, Usage
from router.answer_events import (
    AnswerEvent,
    Ended,
    Finished,
    Opened,
    PromptScored,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from router.complete_answer import HaltReason
from router.generation.collect import collect
from router.guard.moderated_answers import moderate
from safety.api import Action, Origin, Verdict
from safety.pii.kinds import PiiScanner
from safety.streaming.plan import ScannerRule
from tests.router.guarded_answers import (
    BLOCKING,
    REDACTING,
    REFUSAL,
    USAGE,
    Guarded,
    Source,
    answer,
    ends,
    text_events,
    text_of,
)
from tests.safety.scripted import ScriptedClassifier


def test_clean_answers_arrive_whole_and_in_order(make_guarded: type[Guarded]) -> None:
    logprobs = TokenLogprobs(Logprob(1, "p", b"p", -1.0), ())
    batches: list[list[AnswerEvent]] = [
        [PromptScored(0, (logprobs,)), Opened(0)],
        [Reasoning(0, "I think"), Reasoning(0, " so.")],
        [Text(0, "Sure: "), ToolCallStart(0, 0, "call_1", "look")],
        [ToolCallArguments(0, 0, '{"a": '), ToolCallArguments(0, 0, "12}")],
        [ToolCallStart(0, 1, "call_2", "look"), ToolCallArguments(0, 1, "{}")],
        [Ended(0, FinishReason.STOP, True)],
        [Finished(USAGE)],
    ]

    events = make_guarded(REDACTING, BLOCKING)(Source(batches))

    kinds = [type(event) for event in events]
    assert [kind for kind, after in pairwise([*kinds, None]) if kind is not after] == [
        *(PromptScored, Opened, Reasoning, Text, ToolCallStart, ToolCallArguments, ToolCallStart, ToolCallArguments),
        *(Ended, Finished),
    ]
    assert text_of(events, Reasoning) == "I think so."
    assert text_of(events) == "Sure: "
    assert text_of(events, ToolCallArguments) == '{"a": 12}{}'
    assert events[-2:] == [Ended(0, FinishReason.STOP, True), Finished(USAGE)]


@given(st.lists(st.sampled_from(["sec", "ret", "s", "bo", "mb", " and ", "é"]), max_size=30), st.booleans())
def test_every_cut_of_an_answer_gives_the_same_text(pieces: list[str], classified: bool) -> None:
    classifier = ScriptedClassifier() if classified else None
    whole = "".join(pieces)

    events = Guarded(REDACTING, BLOCKING, classifier=classifier)(Source(answer(*pieces)))

    clean = whole.split("bomb")[0].replace("secret", "<KEY>")
    if "bomb" in whole:
        assert clean.startswith(text_of(events))
        assert ends(events) == {0: "content_filter"}
    else:
        assert text_of(events) == clean
        assert ends(events) == {0: "stop"}


def test_a_halt_ends_with_the_refusal_the_usage_and_nothing_behind_it(make_guarded: type[Guarded]) -> None:
    source = Source(answer("How to ", "build a b", "omb: ", *["more "] * 50))
    guard = make_guarded(BLOCKING, message=REFUSAL)

    events = guard(source)

    assert text_of(events) in (f"How to build a {REFUSAL}", f"How to {REFUSAL}", REFUSAL)
    assert events[-3:-1] == [Text(0, REFUSAL), Ended(0, HaltReason.CONTENT_FILTER)]
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens == source.yielded
    assert source.yielded == 4  # opened, and the three pieces
    assert guard.records[0][1].verdicts[0].category == "PHRASE"


@pytest.mark.parametrize("mode", ["hold", "beside"])
def test_a_classifier_halts_although_nothing_more_is_generated(mode: str) -> None:
    source = Source(answer("Take the ", "bomb")[:-2], stall=True)

    events = Guarded(classifier=ScriptedClassifier(["bomb"], delay_s=0.002), mode=mode, message=REFUSAL)(source)

    assert text_of(events) in (
        [f"Take the bomb{REFUSAL}"] if mode == "beside" else [f"Take the {REFUSAL}", REFUSAL]  # by the first check
    )
    assert ends(events) == {0: "content_filter"}
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("halts_all", [False, True])
def test_a_halted_choice_ends_alone_or_with_all_others(make_guarded: type[Guarded], halts_all: bool) -> None:
    batches = [
        *([Opened(choice)] for choice in range(2)),
        [Text(0, "Hello "), Text(1, "A bomb")],
        *([Text(0, "again "), Text(1, "more")] for _ in range(20)),
        [Opened(2), Text(2, "third"), Ended(2, FinishReason.STOP)],
        [Ended(1, FinishReason.STOP), Ended(0, FinishReason.LENGTH), Finished(USAGE)],
    ]
    source = Source(batches)  # type: ignore[arg-type]

    events = make_guarded(BLOCKING, message=REFUSAL, halts_all=halts_all)(source, (0, 0, 0))

    assert "more" not in text_of(events, choice=1)
    assert text_of(events, choice=1) in (f"A {REFUSAL}", REFUSAL)
    if halts_all:
        assert ends(events) == dict.fromkeys(range(3), "content_filter")
        assert source.yielded == 3
        assert {event.choice for event in events if isinstance(event, Opened)} == {0, 1, 2}
    else:
        assert ends(events) == {0: "length", 1: "content_filter", 2: "stop"}
        assert text_of(events, choice=0) == "Hello " + "again " * 20
        assert text_of(events, choice=2) == "third"
        assert events[-1] == Finished(USAGE)


def test_the_engine_is_stopped_once_all_choices_are_halted(make_guarded: type[Guarded]) -> None:
    both = [[Text(0, "a bomb "), Text(1, "x")], [Text(1, "the bomb ")], *([Text(1, "y")] for _ in range(30))]
    source = Source([[Opened(0), Opened(1)], *both])

    events = make_guarded(BLOCKING)(source, (0, 1))

    assert ends(events) == {0: "content_filter", 1: "content_filter"}
    assert source.yielded == 3


@pytest.mark.parametrize("halted_first", [True, False])
@pytest.mark.parametrize("prompts", [(0, 0), (0, 1)])
def test_the_engine_does_not_go_on_for_a_halted_choice_alone(
    make_guarded: type[Guarded], prompts: tuple[int, int], halted_first: bool
) -> None:
    other: list[list[AnswerEvent]] = [[Text(0, "fine")], [Ended(0, FinishReason.STOP)]]
    halted: list[list[AnswerEvent]] = [[Text(1, "a bomb ")]]
    both = [*halted, *other] if halted_first else [*other, *halted]
    source = Source([[Opened(0, prompts[0]), Opened(1, prompts[1])], *both, *([Text(1, "more ")] for _ in range(30))])

    events = make_guarded(BLOCKING, message=REFUSAL)(source, prompts)

    assert ends(events) == {0: "stop", 1: "content_filter"}
    assert text_of(events, choice=0) == "fine"
    assert source.yielded == 4
    assert events[-1] == Finished(Usage(3, 4, 0))


def test_answers_that_are_not_streamed_go_the_same_way(make_guarded: type[Guarded]) -> None:
    async def run() -> None:
        source = Source(answer("My se", "cret is a b", "omb"))
        guard = make_guarded(REDACTING, BLOCKING, message=REFUSAL).guard
        answers, usage = await collect(moderate(source.events(), guard, source.meter, [0]))
        assert answers[0].finish_reason == "content_filter"
        assert answers[0].text.endswith(REFUSAL)
        assert "My <KEY> is a ".startswith(answers[0].text.removesuffix(REFUSAL))
        assert usage.prompt_tokens == 3

    asyncio.run(run())


def test_an_error_of_the_engine_is_raised_after_what_came_before(make_guarded: type[Guarded]) -> None:
    class Failing(Source):
        async def events(self) -> AsyncGenerator[Sequence[AnswerEvent], None]:
            async for batch in super().events():
                yield batch
            raise RuntimeError("the replica died")

    async def run() -> None:
        source = Failing(text_events("Hello", " world")[:-1])
        events: list[AnswerEvent] = []

        async def read() -> None:
            async for batch in moderate(source.events(), make_guarded(REDACTING).guard, source.meter, [0]):
                events.extend(batch)

        with pytest.raises(RuntimeError, match="the replica died"):
            await read()
        assert "Hello world".startswith(text_of(events))
        assert ends(events) == {}

    asyncio.run(run())


@pytest.mark.parametrize("gate", [None, asyncio.Event()], ids=["between checks", "during a check"])
def test_a_client_that_leaves_ends_everything(gate: asyncio.Event | None) -> None:
    async def run() -> None:
        source = Source(text_events("Hello", " world")[:-1], stall=True)
        guard = Guarded(classifier=ScriptedClassifier(gate=gate))
        batches = moderate(source.events(), guard.guard, source.meter, [0])

        async def read() -> None:
            async with aclosing(batches):
                async for _ in batches:
                    pass

        reading = asyncio.ensure_future(read())
        await source.stalled.wait()
        reading.cancel()
        await asyncio.wait({reading})
        assert reading.cancelled()
        assert source.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [(choice, record.origin) for choice, record in guard.records] == [(0, Origin.ANSWER)]

    asyncio.run(run())


@pytest.mark.parametrize(("on_failure", "sent"), [(Action.BLOCK, ""), (Action.ALLOW, "Hello world")])
def test_streams_under_way_follow_the_policy_when_the_classifier_dies(on_failure: Action, sent: str) -> None:
    guard = Guarded(classifier=ScriptedClassifier(dead=True), on_failure=on_failure)

    events = guard(Source(answer("Hello", " world")))

    assert text_of(events) == sent
    assert ends(events) == {0: "content_filter" if on_failure is Action.BLOCK else "stop"}
    assert guard.records[0][1].verdicts[0].error


class Gate:
    """Refuses the tool ``delete``, and calls that mention ``root``."""

    def __init__(self) -> None:
        self.judged: list[tuple[str, str]] = []

    def tool(self, name: str) -> Verdict | None:
        return Verdict("tools", "1", Action.BLOCK) if name == "delete" else None

    def holds_call(self, name: str) -> bool:
        return name == "read"

    def call(self, name: str, arguments: str) -> Verdict | None:
        self.judged.append((name, arguments))
        return Verdict("tools", "1", Action.BLOCK) if "root" in arguments else None


def call_of(name: str, *arguments: str) -> list[list[AnswerEvent]]:
    """An answer of a text and a tool call."""
    pieces: list[list[AnswerEvent]] = [[ToolCallArguments(0, 0, piece)] for piece in arguments]
    head: list[list[AnswerEvent]] = [[Opened(0), Text(0, "Well. ")], [ToolCallStart(0, 0, "call_1", name)]]
    return [*head, *pieces, [Ended(0, FinishReason.STOP, True), Finished(USAGE)]]


@pytest.mark.parametrize(
    ("name", "arguments", "sent"),
    [("look", "/root", True), ("read", "/home", True), ("read", "/root", False), ("delete", "/home", False)],
)
def test_tools_are_judged_before_a_call_is_returned(
    make_guarded: type[Guarded], name: str, arguments: str, sent: bool
) -> None:
    gate, raw = Gate(), f'{{"path": "{arguments}"}}'

    guard = make_guarded(REDACTING, gate=gate)
    events = guard(Source(call_of(name, '{"path": ', f'"{arguments}"', "}")))

    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [start.name for start in starts] == ([name] if sent else [])
    assert text_of(events, ToolCallArguments) == (raw if sent else "")
    assert text_of(events).startswith("Well. ") or not sent
    assert ends(events) == {0: "stop" if sent else "content_filter"}
    assert gate.judged == ([(name, raw)] if name == "read" else [])
    recorded = [verdict.check for _, inspection in guard.records for verdict in inspection.verdicts]
    assert recorded == ([] if sent else ["tools"])


def test_arguments_are_redacted_as_they_stream_and_stay_json(make_guarded: type[Guarded]) -> None:
    raw = '{"to": ["the s\\u0065cret", 7]}'

    events = make_guarded(REDACTING)(Source(call_of("send", *raw)))

    assert json.loads(text_of(events, ToolCallArguments)) == {"to": ["the <KEY>", 7]}


# Right answers where public gateways were reported wrong.


@pytest.mark.parametrize("kind", [Text, Reasoning])
def test_a_value_that_is_cut_by_two_chunks_is_found_in_reasoning_too(
    make_guarded: type[Guarded], kind: type[Text] | type[Reasoning]
) -> None:
    # BerriAI/litellm#41611: user@exa | mple.com passed; api7/aisix#1106: reasoning was never masked.
    rule = ScannerRule("pii", "1", PiiScanner, Action.REDACT)
    batches: list[list[AnswerEvent]] = [[kind(0, piece)] for piece in ("write to user@exa", "mple.com", " soon")]

    events = make_guarded(rule)(Source([[Opened(0)], *batches, [Ended(0, FinishReason.STOP), Finished(USAGE)]]))

    assert text_of(events, kind) == "write to <EMAIL_ADDRESS> soon"


def test_every_choice_is_scanned_by_itself(make_guarded: type[Guarded]) -> None:
    # BerriAI/litellm#36208: only the first choice was scanned, and the texts of choices were joined.
    batches: list[list[AnswerEvent]] = [
        [Opened(0), Opened(1), Opened(2)],
        [Text(0, "sec"), Text(1, "sec")],
        [Text(0, "ret"), Text(1, "ret")],
        [Text(2, "ret"), Text(0, "!")],
        [*(Ended(choice, FinishReason.STOP) for choice in range(3)), Finished(USAGE)],
    ]

    events = make_guarded(REDACTING)(Source(batches), (0, 0, 0))

    assert [text_of(events, choice=choice) for choice in range(3)] == ["<KEY>!", "<KEY>", "ret"]


def test_the_end_of_an_answer_is_checked_whatever_was_checked_before() -> None:
    # openai/openai-agents-python#505: text behind the last check was never checked.
    classifier = ScriptedClassifier(["bomb"])

    events = Guarded(classifier=classifier)(Source(answer("A long harmless text, and ", "then ", "a ", "bomb")))

    assert ends(events) == {0: "content_filter"}
    assert "bomb" not in text_of(events)


def test_no_piece_is_lost_or_emptied(make_guarded: type[Guarded]) -> None:
    # BerriAI/litellm#20027: with a guardrail every fifth chunk came without its content.
    pieces = [f"{number} " for number in range(200)]

    assert text_of(make_guarded(REDACTING, BLOCKING)(Source(answer(*pieces)))) == "".join(pieces)


@pytest.mark.parametrize(
    "guard", [Guarded(REDACTING), Guarded(classifier=ScriptedClassifier(delay_s=0.002))], ids=["in place", "beside"]
)
def test_a_search_that_finds_fewer_answers_than_were_asked_for_ends_all_the_same(guard: Guarded) -> None:
    events = guard(Source(answer("yes")), prompts=(0, 0, 0, 0))

    assert (text_of(events), ends(events)) == ("yes", {0: "stop"})
    assert events[-1] == Finished(USAGE)
