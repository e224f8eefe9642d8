"""The calls of tools in an answer, found as its text comes.

The grammar of the request (``tools``) has seen to it that a call is whole JSON with a known name and arguments that are
valid; what is cut off by the length of the answer is the beginning of one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from engine.api import TOOL_CALL_START
from router.openai.tools import ARGUMENTS, HEAD


@dataclass(frozen=True, slots=True)
class Content:
    """Text that is no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """The ``index``-th call of an answer."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of its arguments. All pieces so far are the beginning of a JSON object."""

    index: int
    text: str


Piece = Content | CallBegun | CallArguments


@dataclass(frozen=True, slots=True)
class Call:
    """A whole call, or as much as there is of it."""

    id: str
    name: str
    arguments: str


class _State(Enum):
    TEXT = auto()  # what may become the beginning of a call is held back, and white space before it
    NAME = auto()
    ARGUMENTS = auto()
    AFTER = auto()  # a call; another may follow, and nothing else


class ToolCallParser:
    """Reads the text of one answer."""

    def __init__(self) -> None:
        self._state = _State.TEXT
        self._held = ""
        self._depth = 0
        self._in_string = self._escaped = False
        self.calls = 0

    @property
    def called(self) -> bool:
        """Whether there are calls, and the last is whole."""
        return self._state is _State.AFTER

    def push(self, text: str) -> list[Piece]:
        """What ``text`` adds."""
        self._held += text
        pieces: list[Piece] = []
        while (more := self._step()) is not None:
            pieces += more
        return pieces

    def finish(self) -> list[Piece]:
        """What is held back, when no more text will come. Of a call that has no name yet nothing is told."""
        text, self._held = self._held, ""
        return [Content(text)] if text and self._state is _State.TEXT else []

    def _step(self) -> list[Piece] | None:
        """What the held text gives in the present state; None if it takes more text to tell."""
        match self._state:
            case _State.TEXT:
                return self._text()
            case _State.NAME:
                return self._name()
            case _State.ARGUMENTS:
                return self._arguments()
            case _State.AFTER:
                return self._after()

    def _text(self) -> list[Piece] | None:
        said, mark, rest = self._held.partition(TOOL_CALL_START)
        if mark:
            self._state, self._held = _State.NAME, rest
            return [Content(said.rstrip())] if said.rstrip() else []
        keep = _possible_start(self._held)
        said, self._held = self._held[:keep], self._held[keep:]
        return [Content(said)] if said else None

    def _name(self) -> list[Piece] | None:
        name, mark, rest = self._held.partition(ARGUMENTS)
        if not mark:
            return None
        self._state, self._held = _State.ARGUMENTS, rest
        self.calls += 1
        return [CallBegun(self.calls - 1, f"call_{uuid.uuid4().hex[:24]}", json.loads(name.removeprefix(HEAD)))]

    def _arguments(self) -> list[Piece] | None:
        if not self._held:
            return None
        end = self._end_of_object()
        text, self._held = self._held[:end], self._held[end:]
        if self._depth == 0:
            self._state = _State.AFTER
        return [CallArguments(self.calls - 1, text)]

    def _end_of_object(self) -> int:
        """Where in the held text the object ends; the text's length if it does not."""
        for place, character in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return len(self._held)

    def _after(self) -> list[Piece] | None:
        _, mark, rest = self._held.partition(TOOL_CALL_START)
        if not mark:
            return None
        self._state, self._held = _State.NAME, rest
        return []


def read_calls(text: str) -> tuple[str, list[Call], bool]:
    """A whole answer: its text, the calls after it, and whether it has some and ends with a whole one."""
    reader = ToolCallParser()
    return (*gathered([*reader.push(text), *reader.finish()]), reader.called)


def gathered(pieces: Iterable[Piece]) -> tuple[str, list[Call]]:
    """Pieces put together."""
    content = ""
    begun: list[CallBegun] = []
    arguments: list[str] = []
    for piece in pieces:
        match piece:
            case Content(text):
                content += text
            case CallBegun():
                begun.append(piece)
                arguments.append("")
            case CallArguments(index, text):
                arguments[index] += text
    return content, [Call(one.id, one.name, text) for one, text in zip(begun, arguments, strict=True)]


def _possible_start(text: str) -> int:
    """Length of ``text`` without the tail that may be white space before a call, or a part of its mark."""
    cut = len(text)
    for length in range(min(len(TOOL_CALL_START) - 1, len(text)), 0, -1):
        if TOOL_CALL_START.startswith(text[-length:]):
            cut -= length
            break
    return len(text[:cut].rstrip())
