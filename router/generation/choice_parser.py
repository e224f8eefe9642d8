"""``ChoiceParser``: splits the generated text of one choice into reasoning, text and tool calls."""

from __future__ import annotations

from engine.api import TOOL_CALL_START
from router.answer_events import Reasoning, Text, ToolCallArguments, ToolCallStart
from router.generation.reasoning_parser import ReasoningParser
from router.generation.tool_parser import ToolCallParser
from router.inference_request import TextParsing

Piece = Text | Reasoning | ToolCallStart | ToolCallArguments


class ChoiceParser:
    """The incremental parser of one choice. Reasoning is parsed first; the text after it is parsed for tool calls."""

    def __init__(self, choice: int, parsing: TextParsing) -> None:
        self._choice = choice
        # A tool call that begins within the reasoning ends the reasoning: the grammar permits only the call from there.
        marks = (TOOL_CALL_START,) if parsing.tool_calls else ()
        self._reasoning = ReasoningParser(marks) if parsing.reasoning else None
        self._calls = ToolCallParser(choice, parsing.text_before_calls) if parsing.tool_calls else None

    @property
    def passes_text(self) -> bool:
        """Whether all further text is passed on unparsed, so that the parser is no longer needed."""
        return self._reasoning is None and self._calls is None

    @property
    def called(self) -> bool:
        """Whether the text so far ends with a complete tool call."""
        return self._calls is not None and self._calls.called

    def push(self, text: str) -> list[Piece]:
        """Takes the next text of the choice and returns the events that it completes. Text that may begin a tag is held
        back for the next call."""
        if self._reasoning is None:
            return self._rest(text)
        thought, rest = self._reasoning.push(text)
        if self._reasoning.done:
            self._reasoning = None
        pieces: list[Piece] = [Reasoning(self._choice, thought)] if thought else []
        return pieces + (self._rest(rest) if rest else [])

    def finish(self) -> list[Piece]:
        """Ends the parsing and returns the events of the text that was held back. Called once, at the end of the
        choice."""
        pieces: list[Piece] = []
        if self._reasoning is not None:
            thought, rest = self._reasoning.finish()
            pieces += [Reasoning(self._choice, thought)] if thought else []
            pieces += self._rest(rest) if rest else []
        return pieces if self._calls is None else [*pieces, *self._calls.finish()]

    def _rest(self, text: str) -> list[Piece]:
        return [Text(self._choice, text)] if self._calls is None else [*self._calls.push(text)]
