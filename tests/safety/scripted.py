"""Scanners and classifiers for tests: what they find is known beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from safety.api import Action, ClassifierUnavailableError, Scan, Scores, Span, Verdict
from safety.streaming.plan import ScannerRule

CHARGE = "classifier"


class NeedleScanner:
    """Finds fixed texts, none of which is a prefix of another. Implements ``StreamScanner``."""

    def __init__(self, needles: Sequence[str], kind: str) -> None:
        self._needles = needles
        self._kind = kind
        self._text = ""
        self._from = 0

    def push(self, piece: str, *, final: bool = False) -> Scan:
        self._text += piece
        found = []
        while hits := [(at, needle) for needle in self._needles if (at := self._text.find(needle, self._from)) >= 0]:
            at, needle = min(hits)
            if not final and self._settled() < at:
                break
            self._from = at + len(needle)
            found.append(Span(at, self._from, self._kind))
        return Scan(tuple(found), len(self._text) if final else self._settled())

    def _settled(self) -> int:
        """The first place at which a needle is whole or may still become whole."""
        for at in range(self._from, len(self._text)):
            rest = self._text[at:]
            if any(rest.startswith(needle) or needle.startswith(rest) for needle in self._needles):
                return at
        return len(self._text)


def needles(action: Action, *texts: str, kind: str = "NEEDLE") -> ScannerRule:
    """A rule for fixed texts."""
    return ScannerRule(f"needles-{kind.lower()}", "1", lambda: NeedleScanner(texts, kind), action)


@dataclass
class ScriptedClassifier:
    """Flags a text that has one of ``bad``. Each call waits for ``delay_s``, and for ``gate`` if there is one."""

    bad: Sequence[str] = ()
    delay_s: float = 0.0
    gate: asyncio.Event | None = None
    dead: bool = False
    nonsense: Sequence[Scores] | None = None
    texts: list[str] = field(default_factory=list)
    urgent: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    cancelled: int = 0
    on_call: Callable[[str], None] = lambda text: None
    version: str = "scripted-1"

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        self.texts += texts
        self.urgent += texts if urgent else ()
        for text in texts:
            self.on_call(text)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await asyncio.sleep(self.delay_s)
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.dead:
            raise ClassifierUnavailableError("scripted to be dead")
        if self.nonsense is not None:
            return self.nonsense
        return [self._scores(text) for text in texts]

    def _scores(self, text: str) -> Scores:
        score = 0.99 if any(each in text for each in self.bad) else 0.01
        return Scores({"violence": score}, 0.0, score > 0.5)


def judge(scores: Scores) -> Verdict | None:
    """Blocks what is flagged."""
    return (
        Verdict(CHARGE, "scripted-1", Action.BLOCK, "violence", scores.categories["violence"])
        if scores.flagged
        else None
    )
