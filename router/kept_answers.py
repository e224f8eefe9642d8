"""``kept``: hands the generated answers of a request to the answer cache as they pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from router.answer_events import AnswerEvent
from router.cache.found_answer import Found
from router.generation.collect import Collector
from router.ledger.ledger import Account

COLLECTED_AT_ONCE = 64
"""Events of an answer that are handed to the collector together: less time for each."""


async def kept(
    events: AsyncGenerator[Sequence[AnswerEvent], None], account: Account, found: Found
) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Yields ``events``, and gives the answers to the cache of ``found`` after the last one. Partial answers are not
    given to it, nor those to a conversation that was shortened after the look-up, or that another version of the model
    continued. An answer that becomes too large is dropped."""
    looked_up, max_chars = account.request, found.max_chars
    collector, recent = Collector(), list[AnswerEvent]()
    async with aclosing(events):
        async for batch in events:
            if found.keeps:
                recent += batch
                if len(recent) >= COLLECTED_AT_ONCE:
                    collector.push(recent)
                    recent = []
                if collector.characters > max_chars:
                    found.not_stored("large")
                    collector = Collector()
            yield batch
    if account.request is not looked_up or account.fault is not None or not found.keeps:
        return
    if account.meter.other_version:
        found.not_stored("version")
        return
    collector.push(recent)
    if collector.characters > max_chars:
        found.not_stored("large")
    else:
        reasoning = account.meter.reasoning_tokens
        found.keep(collector.answers(), collector.usage, reasoning, account.inspections)


@dataclass(frozen=True, slots=True)
class AwaitedAnswer:
    """The answer to the request of ``account``, for which identical ones may wait. Implements ``SharedAnswer``."""

    account: Account
    found: Found

    def client_left(self) -> bool:
        self.account.client_left = self.found.leading
        return self.account.client_left

    async def unwanted(self) -> None:
        await self.found.unwanted()
