"""``whole_body``: the body of a whole response, written so that it holds up no other request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.api import Usage
from router.answer_events import AnswerWriter
from router.complete_answer import Answer

MIN_SCORED_TOKENS = 128
"""Of answers and prompts, with log probabilities: fewer are written within some milliseconds."""


async def whole_body(writer: AnswerWriter, answers: Sequence[Answer], usage: Usage) -> str:
    """Returns what ``writer`` makes of ``answers``. A thread writes the body if there are many log probabilities."""
    scored = sum(len(answer.logprobs or ()) + len(answer.prompt_logprobs or ()) for answer in answers)
    if scored < MIN_SCORED_TOKENS:
        return writer.whole(answers, usage)
    return await asyncio.to_thread(writer.whole, answers, usage)
