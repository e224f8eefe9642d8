"""``collect``: joins the events of a request into complete answers, for a response that is not streamed."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, field, replace

from engine.api import TokenLogprobs, Usage
from router.answer_events import (
    AnswerEvent,
    Cited,
    Ended,
    Finished,
    Interrupted,
    Moderated,
    Opened,
    PromptScored,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from router.complete_answer import Answer, ToolCall
from router.documents import Citation


@dataclass(slots=True)
class _Choice:
    """The pieces of one choice up to now. ``calls`` has the start and the arguments of each tool call."""

    prompt: int
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    calls: list[tuple[ToolCallStart, list[str]]] = field(default_factory=list)
    end: Ended | None = None
    citations: tuple[Citation, ...] = ()

    def add_logprobs(self, logprobs: tuple[TokenLogprobs, ...] | None) -> None:
        if logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs.extend(logprobs)


class Collector:
    """Joins the events of a request into answers, batch by batch. ``usage`` has the token counts of all answers
    together, ``characters`` the number of characters of text, reasoning and tool calls."""

    def __init__(self) -> None:
        self._found: dict[int, _Choice] = {}
        self._scored: dict[int, tuple[TokenLogprobs, ...]] = {}
        self._moderation: Moderated | None = None
        self._interrupted: Interrupted | None = None
        self.usage = Usage(0, 0, 0)
        self.characters = 0

    def push(self, events: Sequence[AnswerEvent]) -> None:
        """Takes the next events, in order."""
        found = self._found
        for event in events:
            match event:
                case Text(choice, text, logprobs):
                    found[choice].text.append(text)
                    self.characters += len(text)
                    found[choice].add_logprobs(logprobs)
                case Reasoning(choice, text, logprobs):
                    found[choice].reasoning.append(text)
                    self.characters += len(text)
                    found[choice].add_logprobs(logprobs)
                case ToolCallArguments(choice, index, text, logprobs):
                    found[choice].calls[index][1].append(text)
                    self.characters += len(text)
                    found[choice].add_logprobs(logprobs)
                case ToolCallStart(choice, _, _, _, logprobs):
                    found[choice].calls.append((event, []))
                    found[choice].add_logprobs(logprobs)
                case Opened(choice, prompt):
                    found[choice] = _Choice(prompt)
                case Cited(choice, citations):
                    found[choice].citations = citations
                case Ended(choice):
                    found[choice].end = event
                case PromptScored(prompt, logprobs):
                    self._scored[prompt] = logprobs
                case Moderated():
                    self._moderation = event
                case Interrupted():
                    self._interrupted = event
                case Finished(usage):
                    self.usage = usage

    def answers(self) -> list[Answer]:
        """Returns the answers of the request in the order of their index, after its last event."""
        answers = [_answer(index, self._found[index], self._scored, self._moderation) for index in sorted(self._found)]
        if (interrupted := self._interrupted) is None:
            return answers
        cut = interrupted.choices
        return [replace(answer, fault=interrupted.error) if answer.index in cut else answer for answer in answers]


async def collect(batches: AsyncIterable[Sequence[AnswerEvent]]) -> tuple[list[Answer], Usage]:
    """Reads ``batches`` to their end. Returns the answers of the request in the order of their index, and the token
    counts of all answers together. Raises the errors of ``batches``."""
    collector = Collector()
    async for events in batches:
        collector.push(events)
    return collector.answers(), collector.usage


def _answer(
    index: int, choice: _Choice, scored: dict[int, tuple[TokenLogprobs, ...]], moderation: Moderated | None
) -> Answer:
    assert choice.end is not None, "every choice ends before its request does"
    return Answer(
        index,
        choice.prompt,
        "".join(choice.text),
        choice.end.reason,
        choice.end.called,
        tuple(ToolCall(start.id, start.name, "".join(arguments)) for start, arguments in choice.calls),
        None if choice.logprobs is None else tuple(choice.logprobs),
        scored.get(choice.prompt),
        "".join(choice.reasoning) if choice.reasoning else None,
        choice.citations,
        None if moderation is None else (moderation.input, moderation.output),
    )
