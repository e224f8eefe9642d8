"""``ToolCallParser``: finds tool calls in the text of an answer while it is generated.

The grammar of the request (``router.tool_grammar``) guarantees that a call is valid JSON, with a known name and with
arguments that follow the schema. An answer that reaches its length limit may end within a call.
"""

from __future__ import annotations

import json
import uuid
from enum import Enum, auto

from engine.api import TOOL_CALL_START
from router.answer_events import Text, ToolCallArguments, ToolCallStart
from router.tool_grammar import ARGUMENTS_PREFIX, NAME_PREFIX

MAX_HELD = 1024
"""The most characters of text that are held back as white space before a possible tool call. All of it is scanned at
every token, so more would take too long."""

Piece = Text | ToolCallStart | ToolCallArguments


class _State(Enum):
    """Where the parser is within the answer."""

    BEGIN = auto()  # at the beginning of an answer that is calls alone or text alone
    PLAIN = auto()  # in an answer that is text alone: what looks like a call is text
    TEXT = auto()  # in text that calls may follow: a possible start of a call, with white space before it, is held back
    NAME = auto()  # within a call, before its arguments
    ARGUMENTS = auto()  # within the arguments of a call
    AFTER = auto()  # behind the arguments of a call; only another call may follow


class ToolCallParser:
    """The incremental parser of the tool calls in one choice. ``calls`` counts the calls that have begun.

    ``text_before_calls``: tool calls may follow text. If it is False, an answer that does not begin with a call has no
    calls.
    """

    def __init__(self, choice: int = 0, text_before_calls: bool = True) -> None:
        self._choice = choice
        self._state = _State.TEXT if text_before_calls else _State.BEGIN
        self._held = ""
        self._depth = 0
        self._in_string = self._escaped = False
        self.calls = 0

    @property
    def called(self) -> bool:
        """Whether the text so far ends with a complete tool call."""
        return self._state is _State.AFTER

    def push(self, text: str) -> list[Piece]:
        """Takes the next text of the choice and returns the events that it completes. Text that may begin a tool call
        is held back for the next call."""
        self._held += text
        pieces: list[Piece] = []
        while (more := self._step()) is not None:
            pieces += more
        return pieces

    def finish(self) -> list[Piece]:
        """Returns the text that was held back as an event, if there is any. Called once, at the end of the choice.

        A tool call whose name is incomplete is dropped.
        """
        text, self._held = self._held, ""
        return [Text(self._choice, text)] if text and self._state in (_State.TEXT, _State.BEGIN) else []

    def _step(self) -> list[Piece] | None:
        """Advances by one state at most. Returns the events that this yields; None if more text is needed."""
        match self._state:
            case _State.BEGIN:
                return self._begin()
            case _State.PLAIN:
                return self._plain()
            case _State.TEXT:
                return self._text()
            case _State.NAME:
                return self._name()
            case _State.ARGUMENTS:
                return self._arguments()
            case _State.AFTER:
                return self._after()

    def _begin(self) -> list[Piece] | None:
        if self._held.startswith(TOOL_CALL_START):
            self._state, self._held = _State.NAME, self._held.removeprefix(TOOL_CALL_START)
            return []
        if TOOL_CALL_START.startswith(self._held):
            return None
        self._state = _State.PLAIN
        return []

    def _plain(self) -> list[Piece] | None:
        text, self._held = self._held, ""
        return [Text(self._choice, text)] if text else None

    def _text(self) -> list[Piece] | None:
        content, mark, rest = self._held.partition(TOOL_CALL_START)
        if mark:
            self._state, self._held = _State.NAME, rest
            return [Text(self._choice, content.rstrip())] if content.rstrip() else []
        keep = max(_possible_start(self._held), len(self._held) - MAX_HELD)
        content, self._held = self._held[:keep], self._held[keep:]
        return [Text(self._choice, content)] if content else None

    def _name(self) -> list[Piece] | None:
        name, mark, rest = self._held.partition(ARGUMENTS_PREFIX)
        if not mark:
            return None
        self._state, self._held = _State.ARGUMENTS, rest
        self.calls += 1
        call_id = f"call_{uuid.uuid4().hex[:24]}"
        return [ToolCallStart(self._choice, self.calls - 1, call_id, json.loads(name.removeprefix(NAME_PREFIX)))]

    def _arguments(self) -> list[Piece] | None:
        if not self._held:
            return None
        end = self._end_of_object()
        text, self._held = self._held[:end], self._held[end:]
        if self._depth == 0:
            self._state = _State.AFTER
        return [ToolCallArguments(self._choice, self.calls - 1, text)]

    def _end_of_object(self) -> int:
        """Reads the held text, and updates depth and string state. Returns the position behind the last bracket of the
        arguments; the length of the held text if they go on."""
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


def _possible_start(text: str) -> int:
    """Returns the length of ``text`` without a suffix that may begin a call, and without white space before that."""
    cut = len(text)
    for length in range(min(len(TOOL_CALL_START) - 1, len(text)), 0, -1):
        if TOOL_CALL_START.startswith(text[-length:]):
            cut -= length
            break
    return len(text[:cut].rstrip())
