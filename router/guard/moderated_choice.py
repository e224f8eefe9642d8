"""``ModeratedChoice``: the events of one choice, held until the guard of the request releases them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

from router.answer_events import (
    AnswerEvent,
    Ended,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from router.complete_answer import HaltReason
from router.guard.held_logprobs import HeldTokens
from safety.api import Action, AnswerGuard, Inspection, Origin, Release, TextModerator, Verdict

Piece = Text | Reasoning | ToolCallArguments

ORIGINS: dict[type[Piece], Origin] = {
    Text: Origin.ANSWER,
    Reasoning: Origin.REASONING,
    ToolCallArguments: Origin.TOOL_ARGUMENTS,
}


@dataclass(slots=True)
class _Part:
    """A part of a choice: reasoning, content, or one tool call. It is sent before all later parts.

    ``start`` is the event that begins a tool call, until it is sent. ``arguments`` has the pieces of a call that is
    sent only as a whole, until it is judged. ``released`` is what may be sent, but was not sent yet.
    """

    kind: type[Piece]
    offset: int  # of its first character in the choice
    moderator: TextModerator | None
    call: int = 0
    start: ToolCallStart | None = None
    arguments: list[str] | None = None
    released: list[Release] = field(default_factory=list)
    length: int = 0
    done: bool = False  # all of it is released
    refused: bool = False  # a complete call that must not be sent

    @property
    def halted(self) -> bool:
        """Whether a check has ended it."""
        return self.moderator is not None and self.moderator.halted

    def push(self, text: str, final: bool = False) -> None:
        """Takes the next piece of the part."""
        self.length += len(text)
        if self.arguments is not None and text:
            self.arguments.append(text)
        if self.moderator is None:
            self.add(Release(text, self.length, done=final))
        else:
            self.add(self.moderator.push(text, final=final))

    def add(self, release: Release) -> None:
        self.released.append(release)
        self.done = release.done


class ModeratedChoice:
    """One choice of a request. ``halted``: a verdict has ended it; ``written``: the engine has; ``ended``: its last
    event was returned.

    The order of its events is kept. Text that was held is sent in fewer, longer pieces. A tool call begins when the
    first of its arguments may be sent. ``prompt`` is the index of the prompt that it answers. ``notify`` is called when
    a check has ended.
    """

    def __init__(self, choice: int, prompt: int, guard: AnswerGuard, notify: Callable[[], None]) -> None:
        self._choice = choice
        self._prompt = prompt
        self._guard = guard
        self._notify = notify
        self._parts: deque[_Part] = deque()
        self._moderators: list[TextModerator] = []
        self._offset = 0  # the length of the choice's text so far
        self._tokens: HeldTokens | None = None
        self._end: Ended | None = None
        self._refused = False  # halted by a verdict on a tool call, or with another choice
        self._denied: list[Verdict] = []  # the verdicts on tool calls that have halted it
        self.written = False
        self.ended = False

    @property
    def halted(self) -> bool:
        """Whether a verdict has ended the choice."""
        return self._refused or any(moderator.halted for moderator in self._moderators)

    def push(self, event: AnswerEvent) -> list[AnswerEvent]:
        """Takes the next event of the choice and returns the events that may be sent now. After a halt events of the
        engine are ignored."""
        if isinstance(event, Ended):
            self.written = True
        if self.ended:
            return []
        if self._goes_on(event):
            return self._pass(event)
        match event:
            case Text() | Reasoning() | ToolCallArguments():
                self._add(event)
            case ToolCallStart():
                self._begin_call(event)
            case Ended():
                self._finish_part()
                self._end = event
            case _:
                return [event]
        return self._take()

    def resume(self) -> list[AnswerEvent]:
        """Returns the events that may be sent now that checks have ended."""
        for part in self._parts:
            if part.moderator is not None:
                part.add(part.moderator.resume())
        return self._take()

    def halt(self) -> list[AnswerEvent]:
        """Ends the choice, since another one was halted, and returns its last events."""
        if self.ended:
            return []
        self._refused = True
        return self._take()

    async def close(self) -> None:
        """Cancels the running checks of the choice, and has the guard record their results, and the verdicts on its
        tool calls."""
        for moderator in self._moderators:
            self._guard.record(self._choice, await moderator.close())
        if self._denied:
            self._guard.record(self._choice, Inspection(Origin.TOOL_ARGUMENTS, 0, 0, {}, tuple(self._denied)))
        self._notify = _nothing  # it holds what holds this choice

    def _goes_on(self, event: AnswerEvent) -> TypeGuard[Text | Reasoning]:
        """Whether ``event`` is the next piece of a text of which nothing else waits: nearly all events are."""
        if self._tokens is not None or len(self._parts) != 1:
            return False
        part = self._parts[0]
        if part.kind is not type(event) or part.kind is ToolCallArguments or part.released:
            return False
        return event.logprobs is None and bool(event.text)

    def _pass(self, event: Text | Reasoning) -> list[AnswerEvent]:
        """Takes an event that goes on with the only part, and returns what may be sent of it, without the bookkeeping
        of several parts."""
        part, text = self._parts[0], event.text
        self._offset += len(text)
        part.length += len(text)
        if part.moderator is None:
            return [event]
        release = part.moderator.push(text)
        if release.done:  # halted
            part.add(release)
            return self._take()
        if release.text == text:
            return [event]
        return [event._replace(text=release.text)] if release.text else []

    def _add(self, event: Piece) -> None:
        if event.logprobs is not None and self._tokens is None:
            self._tokens = HeldTokens(self._offset)
        if self._tokens is not None:
            self._tokens.push(event.text, event.logprobs or ())
        if not event.text:
            return  # it only carries log probabilities
        part = self._parts[-1] if self._parts else None
        call = event.call if isinstance(event, ToolCallArguments) else 0
        if part is None or part.kind is not type(event) or part.call != call:
            part = self._begin(type(event), call)
        self._offset += len(event.text)
        part.push(event.text)

    def _begin_call(self, event: ToolCallStart) -> None:
        if event.logprobs is not None:
            self._add(Text(self._choice, "", event.logprobs))
        if self._is_denied(self._guard.tool(event.name)):
            return
        part = self._begin(ToolCallArguments, event.call)
        part.start = event._replace(logprobs=None)
        part.arguments = [] if self._guard.holds_call(event.name) else None

    def _begin(self, kind: type[Piece], call: int) -> _Part:
        self._finish_part()
        moderator = self._guard.moderator(ORIGINS[kind], self._notify, self._prompt)
        if moderator is not None:
            self._moderators.append(moderator)
        self._parts.append(part := _Part(kind, self._offset, moderator, call))
        return part

    def _finish_part(self) -> None:
        """Ends the last part. A call that is sent as a whole is judged."""
        if not self._parts:
            return
        part = self._parts[-1]
        part.push("", final=True)
        if part.start is not None and part.arguments is not None:
            part.refused = self._is_denied(self._guard.call(part.start.name, "".join(part.arguments)))
            part.arguments = None

    def _is_denied(self, verdict: Verdict | None) -> bool:
        """Halts the choice if ``verdict`` denies a tool call of it. Returns whether it does."""
        if verdict is None or verdict.action is not Action.BLOCK:
            return False
        self._denied.append(verdict)
        self._refused = True
        return True

    def _take(self) -> list[AnswerEvent]:
        """Returns the events that may be sent: those of the first part, and of the next ones once it is done."""
        events: list[AnswerEvent] = []
        while self._parts:
            part = self._parts[0]
            if part.arguments is not None or part.refused:
                break
            self._send(part, events)
            if not part.done or part.halted:
                break
            self._parts.popleft()
        if self.halted:
            self._end_halted(events)
        elif self._end is not None and not self._parts:
            if self._tokens is not None and (tokens := self._tokens.finish(self._offset)) is not None:
                events.append(Text(self._choice, "", tokens))
            events.append(self._end)
            self.ended = True
        return events

    def _send(self, part: _Part, events: list[AnswerEvent]) -> None:
        """Adds the events of what is released of ``part``."""
        releases, part.released = part.released, []
        text = "".join(release.text for release in releases)
        tokens = None
        if self._tokens is not None and releases:
            replaced = [span for release in releases for span in release.replaced]
            places = [(part.offset + span.start, part.offset + span.end) for span in replaced]
            tokens = self._tokens.release(part.offset + releases[-1].end, places)
        if part.start is not None and (text or part.done):
            events.append(part.start)
            part.start = None
        if not text and tokens is None:
            return
        if part.kind is ToolCallArguments and text:
            events.append(ToolCallArguments(self._choice, part.call, text, tokens))
        elif part.kind is Reasoning:
            events.append(Reasoning(self._choice, text, tokens))
        else:
            events.append(Text(self._choice, text, tokens))

    def _end_halted(self, events: list[AnswerEvent]) -> None:
        """Adds the last events of a halted choice. What was held is dropped."""
        if self._guard.message:
            events.append(Text(self._choice, self._guard.message))
        events.append(Ended(self._choice, HaltReason.CONTENT_FILTER))
        self._parts.clear()
        self.ended = True


def _nothing() -> None:
    """Does nothing: after the choice is closed no check ends."""
