"""``cited``: the events of a request's answers, with the citations of each before its end."""

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

    The texts are those that are sent: what a check has replaced or held back is not cited. ``batches`` is closed in
    any case.
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
