"""``PhraseCheck``: finds the phrases of a blocklist in whole passages.

A passage is read in chunks, with a turn of the event loop between them: a megabyte stalls no other request.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from safety.api import Action, Passage, Span, Verdict
from safety.phrases.automaton import PhraseAutomaton
from safety.phrases.scanner import PhraseScanner

CHUNK = 8192
"""Characters between two turns of the event loop: about 5 ms."""


class PhraseCheck:
    """A Check. Each passage with a phrase of the blocklist gets one verdict with the spans of all of them; its category
    is the commonest kind."""

    def __init__(self, automaton: PhraseAutomaton, action: Action = Action.BLOCK, *, name: str = "phrases") -> None:
        self._automaton = automaton
        self._action = action
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._automaton.version

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        """Returns a verdict for each passage with a blocked phrase; see ``Check.check``."""
        verdicts = []
        for index, passage in enumerate(passages):
            await asyncio.sleep(0)  # a request may have thousands of passages
            spans = await self._spans(passage.text)
            if spans:
                category = Counter(span.kind for span in spans).most_common(1)[0][0]
                verdicts.append(
                    Verdict(self._name, self.version, self._action, category, passage=index, spans=tuple(spans))
                )
        return verdicts

    async def _spans(self, text: str) -> list[Span]:
        scanner = PhraseScanner(self._automaton)
        spans: list[Span] = []
        for start in range(0, len(text), CHUNK):
            end = start + CHUNK
            spans += scanner.push(text[start:end], final=end >= len(text)).found
            if end < len(text):
                await asyncio.sleep(0)
        return spans
