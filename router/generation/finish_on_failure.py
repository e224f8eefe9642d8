"""``finish_on_failure``: finishes a request that fails while its answers are sent, with those answers as cut off.

It is for clients that would rather have the part that was generated than an error.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from engine.api import FinishReason
from router.answer_events import AnswerEvent, Ended, Finished, Interrupted, Opened
from router.errors import RefusalError, RefusalKind, refusal_of
from router.usage_meter import MAX_CLIENT_WAIT_S, UsageMeter

logger = logging.getLogger(__name__)

FAULTS = (RefusalKind.INTERNAL, RefusalKind.UNAVAILABLE, RefusalKind.RATE_LIMITED)
"""The kinds of errors for which the service is at fault once a choice has begun. Others say that the request was wrong
or took too long. Limits are checked before, so that RATE_LIMITED is a full replica: of a prompt beside the one that has
begun, where the admission is off."""


async def finish_on_failure(
    events: AsyncGenerator[Sequence[AnswerEvent], None],
    prompts: Sequence[int],
    meter: UsageMeter,
    on_fault: Callable[[RefusalError], None],
) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Yields ``events``, which are closed in any case. If the service fails after a choice has begun, ends the choices
    that have not ended as cut off, after an Interrupted that names them.

    ``prompts`` has the index of the prompt of each choice. ``meter`` counts the tokens. ``on_fault`` gets the error
    that is not raised. Raises what ``events`` raises before a choice has begun, and errors of which the request is the
    cause.
    """
    opened: set[int] = set()
    ended: set[int] = set()
    try:
        async with aclosing(events):
            async for batch in events:
                for event in batch:
                    if isinstance(event, Opened):
                        opened.add(event.choice)
                    elif isinstance(event, Ended):
                        ended.add(event.choice)
                yield batch
        return
    except Exception as error:
        refusal = refusal_of(error)
        if not opened or refusal.kind not in FAULTS:
            raise
    logger.warning("an answer is cut off: %s", refusal.code)
    on_fault(refusal)
    await meter.wait(MAX_CLIENT_WAIT_S)
    cut = [choice for choice in range(len(prompts)) if choice not in ended]
    missing = [Opened(choice, prompts[choice]) for choice in cut if choice not in opened]
    ends = [Ended(choice, FinishReason.LENGTH) for choice in cut]
    yield [*missing, Interrupted(frozenset(cut), refusal), *ends, Finished(meter.total.usage)]
