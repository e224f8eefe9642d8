"""``moderate``: passes on the events of a request's answers as far as the guard allows them.

The guard sees texts, not wire formats, so that every format is guarded alike, streamed or not. Without checks beside
the stream, each batch of events passes through in place. With them, a task reads the batches ahead of the client: the
checks of a text begin when it arrives, and run while earlier text is still being written to the client. So a client
that reads slowly does not wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from router.aborted_prompts import AbortedPrompts
from router.answer_events import (
    AnswerEvent,
    Finished,
    Interrupted,
    Moderated,
    Notice,
    Opened,
    PromptScored,
    Repeated,
    Routed,
)
from router.guard.moderated_choice import ModeratedChoice
from router.usage_meter import MAX_CLIENT_WAIT_S, UsageMeter
from safety.api import AnswerGuard

MAX_UNREAD = 256
"""The most batches that are read ahead while the client does not take any."""

Batches = AsyncGenerator[Sequence[AnswerEvent], None]


async def moderate(
    events: Batches, guard: AnswerGuard, meter: UsageMeter, prompts: Sequence[int], aborts: AbortedPrompts | None = None
) -> Batches:
    """Yields those of ``events`` that may be sent, in batches. The last event is Finished.

    ``events`` are those of ``router.generation.generate``, and are closed in any case. ``prompts`` has the index of the
    prompt of each choice. ``meter`` counts the tokens of the request.

    A choice that a verdict halts ends with the reason CONTENT_FILTER, after the message of the guard. The other choices
    go on, unless the guard halts all. As soon as all choices of a prompt are halted or have ended, the prompt is
    stopped through ``aborts``; when all choices are, ``events`` is closed. Both abort the work in the engine, and
    Finished has the tokens that were generated until then. The engine cannot abort a single choice of a prompt: while
    others go on, a halted one is generated, dropped and paid for.

    Raises what ``events`` raises, and any unexpected exception of a check.
    """
    answers = ModeratedAnswers(guard, prompts, aborts or AbortedPrompts())
    moderated = _moderated_beside(events, answers) if guard.waits else _moderated_in_place(events, answers)
    try:
        async with aclosing(moderated):
            async for batch in moderated:
                yield batch
        if answers.halted and not answers.finished:
            await meter.wait(MAX_CLIENT_WAIT_S)
            yield [Finished(meter.total.usage)]
    finally:
        await answers.close()


class ModeratedAnswers:
    """The moderation state of all choices of a request. ``finished``: the event Finished was returned.

    Choices are numbered from 0; ``prompts`` has the index of the prompt of each. A prompt is stopped if the engine
    writes halted choices of it alone. ``on_check`` is called whenever a check has ended.
    """

    def __init__(self, guard: AnswerGuard, prompts: Sequence[int], aborts: AbortedPrompts) -> None:
        self._guard = guard
        self._prompts = prompts
        self._aborts = aborts
        self._several_prompts = len(set(prompts)) > 1
        self._choices: dict[int, ModeratedChoice] = {}
        self._last: list[AnswerEvent] = []  # the end of the request, until all choices have ended
        self.on_check: Callable[[], None] = _nothing
        self.finished = False

    @property
    def halted(self) -> bool:
        """Whether no further event of the engine will be sent, since verdicts have halted all choices that it still
        writes."""
        choices = self._choices.values()
        halted = [choice for choice in choices if choice.halted]
        if not halted or self._guard.halts_all:
            return bool(halted)
        if len(choices) < len(self._prompts) or all(choice.written for choice in halted):
            return False
        return all(choice.written or choice.halted for choice in choices)

    @property
    def ended(self) -> bool:
        """Whether the last event of every choice was returned."""
        return len(self._choices) == len(self._prompts) and all(choice.ended for choice in self._choices.values())

    def push(self, batch: Sequence[AnswerEvent]) -> list[AnswerEvent]:
        """Takes the next batch of events and returns those that may be sent now."""
        events: list[AnswerEvent] = []
        for event in batch:
            if isinstance(event, PromptScored | Notice | Routed | Repeated | Moderated | Interrupted):
                events.append(event)
            elif isinstance(event, Finished):
                self._last.append(event)
            else:
                if isinstance(event, Opened):
                    self._open(event.choice)
                events += self._choices[event.choice].push(event)
        return self._ending(events)

    def resume(self) -> list[AnswerEvent]:
        """Returns the events that may be sent now that checks have ended."""
        events = [event for choice in self._choices.values() if not choice.ended for event in choice.resume()]
        return self._ending(events)

    async def close(self) -> None:
        """Cancels the running checks, and has the guard record their results."""
        for choice in self._choices.values():
            await choice.close()

    def _open(self, choice: int) -> None:
        self._choices[choice] = ModeratedChoice(choice, self._prompts[choice], self._guard, self._check_ended)

    def _check_ended(self) -> None:
        self._stop_halted()
        self.on_check()

    def _stop_halted(self) -> None:
        """Stops the prompts of which the engine writes halted choices alone, if there are several prompts."""
        if not self._several_prompts:
            return
        going_on, in_vain = set[int](), set[int]()
        for place, prompt in enumerate(self._prompts):
            choice = self._choices.get(place)
            if choice is None or not choice.written:
                (in_vain if choice is not None and choice.halted else going_on).add(prompt)
        for prompt in in_vain - going_on - self._aborts.aborted:
            self._aborts.abort(prompt)

    def _ending(self, events: list[AnswerEvent]) -> list[AnswerEvent]:
        """Adds the ends of all choices if one was halted and the guard halts all; then the end of the request."""
        self._stop_halted()
        if self._guard.halts_all and self.halted:
            for choice, prompt in enumerate(self._prompts):
                if choice not in self._choices:
                    self._open(choice)
                    events.append(Opened(choice, prompt))
                events += self._choices[choice].halt()
        if self._last and all(choice.ended for choice in self._choices.values()):  # a beam search may find fewer
            events += self._last
            self._last, self.finished = [], True
        return events


async def _moderated_in_place(events: Batches, answers: ModeratedAnswers) -> Batches:
    """Yields what ``answers`` makes of each batch. Ends when there is no more, or all choices are halted."""
    last: list[AnswerEvent] = []
    async with aclosing(events):
        async for batch in events:
            last = answers.push(batch)
            if answers.halted:
                break
            if last:
                yield last
            last = []
    if last:
        yield last


async def _moderated_beside(events: Batches, answers: ModeratedAnswers) -> Batches:
    """Yields what ``answers`` makes of the batches, and of the checks that run beside them."""
    ahead = _ReadAhead(events, answers)
    try:
        while not ahead.over:
            if batch := await ahead.next():
                yield batch
    finally:
        await ahead.close()


class _ReadAhead:
    """A task that reads ``events`` ahead of the client, at most MAX_UNREAD batches. A halt ends it at once, which
    closes ``events``, whether or not the client is reading."""

    def __init__(self, events: Batches, answers: ModeratedAnswers) -> None:
        self._events = events
        self._answers = answers
        self._ready: list[AnswerEvent] = []  # what may be sent, but was not taken yet
        self._unread = 0  # batches
        self._checked = False  # whether a check has ended since the last call of next
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        answers.on_check = self._on_check
        self._reader = asyncio.ensure_future(self._read())
        self._reader.add_done_callback(lambda _: self._changed.set())

    @property
    def over(self) -> bool:
        """Whether there is nothing more to yield."""
        answers = self._answers
        return not self._ready and (answers.finished or (answers.halted and answers.ended))

    async def next(self) -> list[AnswerEvent]:
        """Waits for a batch or a check, and returns the events that may be sent, maybe none. Raises what ``events`` or
        a check raised, after the events before it."""
        await self._changed.wait()
        self._changed.clear()
        self._unread = 0
        self._room.set()
        ready, self._ready = self._ready, []
        if self._checked:
            self._checked = False
            ready += self._answers.resume()
        if self._reader.done() and not self._reader.cancelled() and self._reader.exception() is not None:
            if not ready:
                self._reader.result()  # raises it; a variable for it would be held by its own traceback
            self._changed.set()
        return ready

    async def close(self) -> None:
        """Ends the task and closes ``events``."""
        self._answers.on_check = _nothing  # what is left of a request must not be a cycle, which only a collector frees
        self._reader.cancel()
        await asyncio.wait({self._reader})
        if not self._reader.cancelled():
            self._reader.exception()  # retrieved, so that asyncio does not log it; it was raised or the client has left
        del self._reader  # the traceback of its error has a frame of ``_read``, which holds this
        await self._events.aclose()  # if the task was cancelled before it began

    async def _read(self) -> None:
        async with aclosing(self._events) as events:
            async for batch in events:
                released = self._answers.push(batch)
                halted = self._answers.halted
                if released or halted or self._answers.finished:
                    self._ready += released
                    self._changed.set()
                # Otherwise all of it is held, until a check ends: the client's task would wake for nothing.
                if halted:
                    return
                self._unread += 1
                if self._unread >= MAX_UNREAD:
                    self._changed.set()  # a client that waits makes room, though it gets nothing
                    self._room.clear()
                    await self._room.wait()

    def _on_check(self) -> None:
        self._checked = True
        self._changed.set()
        if self._answers.halted:
            self._reader.cancel()


def _nothing() -> None:
    """Does nothing: there is no check beside the stream, or none that is left."""
