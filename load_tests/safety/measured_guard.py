"""A guard of answers with the scanners of the product, which measures how long text is held back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from load_tests.safety.quantiles import quantiles
from safety.api import (
    Action,
    AnswerGuard,
    Inspection,
    Moderation,
    Origin,
    Passage,
    PolicyAdmin,
    Release,
    Ruling,
    Subject,
    TextClassifier,
    TextModerator,
    TextUse,
    Verdict,
)
from safety.phrases.automaton import PhraseAutomaton
from safety.phrases.phrase import Phrase
from safety.phrases.scanner import PhraseScanner
from safety.pii.kinds import VERSION as PII_VERSION
from safety.pii.kinds import PiiScanner
from safety.secrets.kinds import VERSION as SECRETS_VERSION
from safety.secrets.kinds import SecretScanner
from safety.streaming.answer_guard import PlannedGuard
from safety.streaming.plan import ClassifierRule, ScannerRule, StreamPlan


@dataclass(frozen=True, slots=True)
class HoldBack:
    """What is held: ``characters`` after each piece, and the ``ms`` that each released piece has waited. ``halts``
    counts the texts that were halted."""

    characters: dict[str, float]
    ms: dict[str, float]
    halts: int


@dataclass(slots=True)
class Samples:
    """The measurements of all texts."""

    characters: list[int] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    halts: int = 0


class MeasuredModerator:
    """Moderates as ``inner`` does and adds to ``samples``. Implements ``TextModerator``."""

    def __init__(self, inner: TextModerator, samples: Samples) -> None:
        self._inner = inner
        self._samples = samples
        self._arrived: deque[tuple[int, float]] = deque()  # the end of each piece, and when it came
        self._length = 0

    @property
    def halted(self) -> bool:
        """Whether a verdict has ended the text."""
        return self._inner.halted

    def push(self, piece: str, *, final: bool = False) -> Release:
        """Takes the next piece."""
        if piece:
            self._length += len(piece)
            self._arrived.append((self._length, time.perf_counter()))
        release = self._released(self._inner.push(piece, final=final))
        if piece and not self._inner.halted:
            self._samples.characters.append(self._length - release.end)
        return release

    def resume(self) -> Release:
        """Returns what finished checks have released."""
        return self._released(self._inner.resume())

    async def close(self) -> Inspection:
        """Ends the running check."""
        self._samples.halts += self._inner.halted
        return await self._inner.close()

    def _released(self, release: Release) -> Release:
        now = time.perf_counter()
        while self._arrived and self._arrived[0][0] <= release.end:
            self._samples.ms.append(1000 * (now - self._arrived.popleft()[1]))
        return release


class MeasuredAnswers:
    """Guards as ``inner`` does, with measured moderators. Implements ``AnswerGuard``."""

    def __init__(self, inner: PlannedGuard, samples: Samples) -> None:
        self._inner = inner
        self._samples = samples

    @property
    def message(self) -> str:
        """The refusal."""
        return self._inner.message

    @property
    def halts_all(self) -> bool:
        """Whether one halt halts all choices."""
        return self._inner.halts_all

    @property
    def waits(self) -> bool:
        """Whether checks run beside the stream."""
        return self._inner.waits

    def moderator(self, origin: Origin, notify: Callable[[], None], prompt: int = 0) -> TextModerator | None:
        """Returns a measured moderator."""
        inner = self._inner.moderator(origin, notify, prompt)
        return None if inner is None else MeasuredModerator(inner, self._samples)

    def tool(self, name: str) -> Verdict | None:
        """Judges the name of a tool."""
        return self._inner.tool(name)

    def holds_call(self, name: str) -> bool:
        """Whether a call is sent as a whole."""
        return self._inner.holds_call(name)

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Judges a complete call."""
        return self._inner.call(name, arguments)

    def record(self, choice: int, inspection: Inspection) -> None:
        """Takes what was done with one text."""
        self._inner.record(choice, inspection)


class MeasuredGuard:
    """Lets all requests pass and guards their answers. Implements ``Guard``.

    ``mode``: ``scanners`` has no classifier; ``hold`` and ``beside`` are those of ``ClassifierRule``.
    """

    classifier = ""
    admin: PolicyAdmin | None = None

    def __init__(self, phrases: Sequence[str], mode: str, classifier: TextClassifier) -> None:
        automaton = PhraseAutomaton([Phrase(text) for text in phrases])
        scanners = (
            ScannerRule("phrases", automaton.version, lambda: PhraseScanner(automaton), Action.BLOCK),
            ScannerRule("secrets", SECRETS_VERSION, SecretScanner, Action.REDACT),
            ScannerRule("pii", PII_VERSION, PiiScanner, Action.REDACT),
        )
        checked = None
        if mode != "scanners":
            checked = ClassifierRule(classifier, lambda _: None, mode=cast(Literal["hold", "beside"], mode))
        self._plan = StreamPlan(scanners, checked)
        self._samples = Samples()

    async def drops_turns(self, tenant: str) -> bool:
        """Drops none."""
        return False

    async def speculates(self, tenant: str) -> Sequence[str] | None:
        """Waits for the checks."""
        return None

    async def inspect(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        tools: Sequence[str] = (),
        *,
        use: TextUse = TextUse.GENERATION,
    ) -> Ruling:
        """Allows the request."""
        return Ruling(Action.ALLOW, tuple(passage.text for passage in passages))

    async def moderate(self, subject: Subject, texts: Sequence[str], *, urgent: bool = True) -> Sequence[Moderation]:
        """Is not asked."""
        raise NotImplementedError

    async def answers(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        ruling: Ruling,
        on_inspection: Callable[[Inspection], None],
        *,
        streamed: bool = True,
        continued: Sequence[str] = (),
        as_json: bool = False,
    ) -> AnswerGuard | None:
        """Returns the measured guard of the answers."""
        guard = PlannedGuard(self._plan, lambda _, inspection: on_inspection(inspection))
        return MeasuredAnswers(guard, self._samples)

    def hold_back(self) -> HoldBack:
        """Returns what was measured."""
        samples = self._samples
        return HoldBack(quantiles(samples.characters), quantiles(samples.ms), samples.halts)
