"""``replay``: turns stored answers into the events that generation would have yielded."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence

from router.answer_events import AnswerEvent, Ended, Finished, Opened, Reasoning, Text, ToolCallArguments, ToolCallStart
from router.cache.answer_document import StoredAnswers
from router.complete_answer import Answer

PIECE_CHARS = 256
"""Characters of one event. A client that shows text as it comes gets several, and no write is large."""


async def replay(stored: StoredAnswers) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Yields the events of all answers, in batches of a piece of text each; the last event is Finished, with the usage
    of the generation. Tool calls get new ids, which are as unique as those of a generation."""
    for answer in stored.answers:
        batch: list[AnswerEvent] = [Opened(answer.index, answer.prompt)]
        for event in _content(answer):
            batch.append(event)
            if not isinstance(event, ToolCallStart):
                yield batch
                batch = []
        yield [*batch, Ended(answer.index, answer.finish_reason, answer.called)]
    yield [Finished(stored.usage)]


def _content(answer: Answer) -> Iterator[AnswerEvent]:
    choice = answer.index
    for piece in _pieces(answer.reasoning or ""):
        yield Reasoning(choice, piece)
    for piece in _pieces(answer.text):
        yield Text(choice, piece)
    for number, call in enumerate(answer.tool_calls):
        yield ToolCallStart(choice, number, f"call_{uuid.uuid4().hex[:24]}", call.name)
        for piece in _pieces(call.arguments):
            yield ToolCallArguments(choice, number, piece)


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]
