"""Answers under a guard whose classifier is scripted: the events that go in, and those that come out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from engine.api import FinishReason, Usage
from router.answer_events import AnswerEvent, Ended, Finished, Opened, Reasoning, Text, ToolCallArguments
from router.guard.moderated_answers import moderate
from router.usage_meter import UsageMeter
from safety.api import Action, Inspection
from safety.streaming.answer_guard import PlannedGuard, ToolGate
from safety.streaming.plan import ClassifierRule, Pace, ScannerRule, StreamPlan
from tests.safety.scripted import ScriptedClassifier, judge, needles

USAGE = Usage(3, 5, 0)
REFUSAL = "I cannot go on."
PACE = Pace(first=4, most=16, window=24, overlap=6, wait_s=0.005)
REDACTING = needles(Action.REDACT, "secret", kind="KEY")
BLOCKING = needles(Action.BLOCK, "bomb", kind="PHRASE")


@dataclass
class Source:
    """The events of ``generate``: each batch after a turn of the event loop, then a wait if ``stall`` is set."""

    batches: Sequence[Sequence[AnswerEvent]]
    stall: bool = False
    meter: UsageMeter = field(default_factory=UsageMeter)
    yielded: int = 0
    closed: bool = False
    stalled: asyncio.Event = field(default_factory=asyncio.Event)

    async def events(self) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        attempt = self.meter.attempt(3)
        try:
            for batch in self.batches:
                await asyncio.sleep(0)
                self.yielded += 1
                attempt.seen += 1
                yield batch
            if self.stall:
                self.stalled.set()
                await asyncio.Event().wait()
        finally:
            self.closed = True
            attempt.report(USAGE if self.yielded == len(self.batches) else Usage(3, attempt.seen, 0))


class Guarded:
    """A guard with what it has recorded."""

    def __init__(
        self,
        *scanners: ScannerRule,
        classifier: ScriptedClassifier | None = None,
        gate: ToolGate | None = None,
        message: str = "",
        halts_all: bool = False,
        mode: str = "hold",
        on_failure: Action = Action.BLOCK,
    ) -> None:
        rule = None
        if classifier is not None:
            rule = ClassifierRule(classifier, judge, mode=mode, on_failure=on_failure, pace=PACE)  # type: ignore[arg-type]
        self.records: list[tuple[int, Inspection]] = []
        plan = StreamPlan(scanners, rule)
        record = lambda choice, inspection: self.records.append((choice, inspection))  # noqa: E731
        self.guard = PlannedGuard(plan, record, gate, message, halts_all)

    async def run(self, source: Source, prompts: Sequence[int] = (0,)) -> list[AnswerEvent]:
        """All events that are sent. Afterwards nothing runs any more."""
        events: list[AnswerEvent] = []
        async with asyncio.timeout(10):
            async with aclosing(moderate(source.events(), self.guard, source.meter, prompts)) as batches:
                async for batch in batches:
                    assert batch
                    events += batch
        assert source.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return events

    def __call__(self, source: Source, prompts: Sequence[int] = (0,)) -> list[AnswerEvent]:
        return asyncio.run(self.run(source, prompts))


def text_events(*pieces: str, choice: int = 0) -> list[list[AnswerEvent]]:
    """An answer of text, one piece per batch."""
    texts: list[list[AnswerEvent]] = [[Text(choice, piece)] for piece in pieces]
    return [[Opened(choice)], *texts, [Ended(choice, FinishReason.STOP)]]


def answer(*pieces: str) -> list[list[AnswerEvent]]:
    """All events of a request with one answer of text."""
    return [*text_events(*pieces), [Finished(USAGE)]]


def text_of(
    events: Sequence[AnswerEvent], kind: type[Text] | type[Reasoning] | type[ToolCallArguments] = Text, choice: int = 0
) -> str:
    """The joined text of one kind of events."""
    texts = [event for event in events if isinstance(event, Text | Reasoning | ToolCallArguments)]
    return "".join(event.text for event in texts if isinstance(event, kind) and event.choice == choice)


def ends(events: Sequence[AnswerEvent]) -> dict[int, str]:
    """The reason with which each choice ended."""
    return {event.choice: event.reason.value for event in events if isinstance(event, Ended)}
