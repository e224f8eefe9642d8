"""The events of a request that a guard refuses and whose refusal is sent as an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from engine.api import Usage
from router.answer_events import AnswerEvent, Ended, Finished, Opened, Text
from router.complete_answer import HaltReason


async def refused_answer(message: str, prompts: Sequence[int]) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Yields ``message`` as the whole answer of each choice. ``prompts`` has the index of the prompt of each choice. No
    token is generated or paid for."""
    for choice, prompt in enumerate(prompts):
        yield [Opened(choice, prompt), Text(choice, message), Ended(choice, HaltReason.CONTENT_FILTER)]
    yield [Finished(Usage(0, 0, 0))]
