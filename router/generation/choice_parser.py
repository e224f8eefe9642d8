"""The text of one choice to answer events: first its reasoning, then its tool calls."""

from __future__ import annotations

from engine.api import TOOL_CALL_START
from router.answer_events import Reasoning, Text, ToolCallArguments, ToolCallStart
from router.generation.reasoning_parser import ReasoningParser
from router.generation.tool_parser import ToolCallParser
from router.inference_request import TextParsing

Piece = Text | Reasoning | ToolCallStart | ToolCallArguments


class ChoiceParser:
    """Parses the text of choice number ``choice``."""

    def __init__(self, choice: int, parsing: TextParsing) -> None:
        self._choice = choice
        # A tool call that begins within the reasoning ends it: the grammar allows nothing else from there on.
        marks = (TOOL_CALL_START,) if parsing.tool_calls else ()
        self._reasoning = ReasoningParser(marks) if parsing.reasoning else None
        self._calls = ToolCallParser(choice, parsing.text_before_calls) if parsing.tool_calls else None

    @property
    def idle(self) -> bool:
        """Whether all that follows is text as it is."""
        return self._reasoning is None and self._calls is None

    @property
    def called(self) -> bool:
        """Whether there are tool calls, and the last is whole."""
        return self._calls is not None and self._calls.called

    def push(self, text: str) -> list[Piece]:
        """The pieces that ``text`` completes."""
        if self._reasoning is None:
            return self._rest(text)
        thought, rest = self._reasoning.push(text)
        if self._reasoning.done:
            self._reasoning = None
        pieces: list[Piece] = [Reasoning(self._choice, thought)] if thought else []
        return pieces + (self._rest(rest) if rest else [])

    def finish(self) -> list[Piece]:
        """What was held back, when no more text will come."""
        pieces: list[Piece] = []
        if self._reasoning is not None:
            thought, rest = self._reasoning.finish()
            pieces += [Reasoning(self._choice, thought)] if thought else []
            pieces += self._rest(rest) if rest else []
        return pieces if self._calls is None else [*pieces, *self._calls.finish()]

    def _rest(self, text: str) -> list[Piece]:
        return [Text(self._choice, text)] if self._calls is None else [*self._calls.push(text)]
