"""``WholeBodies``: the bodies of whole responses, written so that they hold up no other request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.api import Usage
from router.answer_events import AnswerWriter
from router.cancellation_shield import finished
from router.complete_answer import Answer

MIN_SCORED_TOKENS = 128
"""Of answers and prompts, with log probabilities: fewer are written within some milliseconds."""


class WholeBodies:
    """The bodies of one endpoint. A thread writes those with many log probabilities, one at a time: each thread wants
    the interpreter's lock, and beside several of them the event loop gets a turn too seldom."""

    def __init__(self) -> None:
        self._thread = asyncio.Lock()

    async def write(self, writer: AnswerWriter, answers: Sequence[Answer], usage: Usage) -> str:
        """Returns what ``writer`` makes of ``answers``. A caller that is cancelled waits for the thread that writes for
        it, which cannot be stopped."""
        scored = sum(len(answer.logprobs or ()) + len(answer.prompt_logprobs or ()) for answer in answers)
        if scored < MIN_SCORED_TOKENS:
            return writer.whole(answers, usage)
        async with self._thread:
            return await finished(asyncio.to_thread(writer.whole, answers, usage))
