"""Checks of whole passages by recognisers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from safety.api import Action, Passage, Span, Verdict
from safety.patterns.recogniser import Recogniser
from safety.patterns.scanner import PatternScanner, joined

MAX_PIECE = 2048  # characters scanned before other tasks run: some 4 ms, and 50 ms of hostile text


async def find_between_tasks(recognisers: Sequence[Recogniser], text: str) -> tuple[Span, ...]:
    """Returns the spans that ``recognisers`` find in a text. It yields to the event loop after every ``MAX_PIECE``
    characters."""
    scanner, found = PatternScanner(recognisers), list[Span]()
    for start in range(0, len(text), MAX_PIECE):
        end = start + MAX_PIECE
        found += scanner.push(text[start:end], final=end >= len(text)).found
        if end < len(text):
            await asyncio.sleep(0)
    return joined(found)


class PatternCheck:
    """A ``Check`` that reports every passage in which one of ``recognisers`` finds something."""

    def __init__(
        self, *, name: str, version: str, category: str, recognisers: Sequence[Recogniser], action: Action
    ) -> None:
        self.name = name
        self.version = version
        self.category = category
        self.action = action
        self._recognisers = recognisers

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        """Returns a verdict for each passage in which a recogniser finds something, with the spans of all kinds; see
        ``Check.check``."""
        verdicts = []
        for index, passage in enumerate(passages):
            await asyncio.sleep(0)  # a request may have thousands of passages
            if spans := await find_between_tasks(self._recognisers, passage.text):
                verdicts.append(
                    Verdict(self.name, self.version, self.action, self.category, passage=index, spans=spans)
                )
        return verdicts
