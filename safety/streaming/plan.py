"""``StreamPlan``: the checks of the answers to one request, and the actions on their findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from safety.api import Action, Origin, Scores, StreamScanner, TextClassifier, Verdict
from safety.streaming.recent_checks import RecentChecks

ALL_TEXTS = frozenset({Origin.ANSWER, Origin.REASONING, Origin.TOOL_ARGUMENTS})
"""The origins of the texts of an answer."""


@dataclass(frozen=True, slots=True)
class ScannerRule:
    """A stream scanner, and the action on its spans.

    ``make`` returns a scanner for one text. REDACT replaces the spans, BLOCK halts before the first of them, ALLOW and
    REVIEW only report them: a person cannot decide while a stream is being read.
    """

    name: str
    version: str
    make: Callable[[], StreamScanner]
    action: Action
    origins: frozenset[Origin] = ALL_TEXTS


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace at which a text is classified, in characters; a token has about four.

    The first check begins once ``start`` characters are there, which is with the first piece unless it is set. Every
    further check begins after a number of new characters, which is ``first`` and grows fourfold with each check up to
    ``most``; or at a sentence border after a quarter of that number; or when text has waited for ``wait_s`` seconds.
    After a check the next one rests for ``rest`` times as long as it took, or as checks of all texts take at present if
    that is longer; at most ``most_rest_s`` seconds. So a busy classifier gets fewer and larger checks; the end of a
    text is never kept waiting. A check reads ``window`` characters, at least ``overlap`` of them for the second time.
    """

    start: int = 1
    first: int = 16
    most: int = 256
    window: int = 384
    overlap: int = 64
    wait_s: float = 0.25
    rest: float = 8.0
    most_rest_s: float = 1.0

    def __post_init__(self) -> None:
        if not (
            1 <= self.first <= self.most
            and self.start >= 1
            and 0 <= self.overlap <= self.window
            and self.wait_s > 0
            and self.rest >= 0
            and self.most_rest_s >= 0
        ):
            raise ValueError(f"a pace out of range: {self}")


WHOLE_ANSWER = Pace(start=256, first=256, wait_s=5.0)
"""The pace for answers that are sent as a whole: no reader waits for a check before the last, and the earlier ones are
there to stop the engine."""


@dataclass(frozen=True, slots=True)
class ClassifierRule:
    """The classifier of answers. ``judge`` turns scores into a verdict; None: the text is harmless. A verdict of BLOCK
    halts the text.

    ``mode``: ``hold`` releases text once a check that covers it has ended without a finding. ``beside`` releases it
    after the scanners, and halts when a check that runs meanwhile finds something. ``on_failure`` is the action when
    the classifier is unavailable: BLOCK halts the text, ALLOW sends it unscanned. ``recent`` has the durations of the
    checks of all texts of the policy. ``awaited``: a reader waits for the first check of a text, before which nothing
    of it is sent.
    """

    classifier: TextClassifier
    judge: Callable[[Scores], Verdict | None]
    name: str = "classifier"
    mode: Literal["hold", "beside"] = "hold"
    on_failure: Action = Action.BLOCK
    pace: Pace = field(default_factory=Pace)
    recent: RecentChecks = field(default_factory=RecentChecks)
    origins: frozenset[Origin] = ALL_TEXTS
    awaited: bool = False


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The checks of one text of an answer. Where redacted spans overlap, the replacement of the first rule is used for
    all."""

    scanners: tuple[ScannerRule, ...] = ()
    classifier: ClassifierRule | None = None

    def of(self, origin: Origin) -> StreamPlan:
        """Returns the part of the plan for texts of ``origin``."""
        scanners = tuple(rule for rule in self.scanners if origin in rule.origins)
        classifier = self.classifier
        return StreamPlan(scanners, classifier if classifier is not None and origin in classifier.origins else None)

    @property
    def empty(self) -> bool:
        """Whether the plan has no checks."""
        return not self.scanners and self.classifier is None
