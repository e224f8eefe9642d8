"""``cited``: adds the citations of each answer to its events, before its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from router.answer_events import AnswerEvent, Cited, Ended, Text
from router.documents import ContextPassage
from router.retrieval.citations import citations

Batches = AsyncGenerator[Sequence[AnswerEvent], None]


async def cited(batches: Batches, passages: Sequence[ContextPassage]) -> Batches:
    """Yields ``batches``, with a Cited before the Ended of each choice that refers to one of ``passages``.

    Citations are found in the texts that are sent, so text that a check has replaced or held back has none. ``batches``
    is closed in any case.
    """
    texts: defaultdict[int, list[str]] = defaultdict(list)
    async with aclosing(batches):
        async for batch in batches:
            events: list[AnswerEvent] = []
            for event in batch:
                if isinstance(event, Text):
                    texts[event.choice].append(event.text)
                elif isinstance(event, Ended) and (found := citations("".join(texts[event.choice]), passages)):
                    events.append(Cited(event.choice, tuple(found)))
                events.append(event)
            yield events
