"""``StreamModerator``: scans and classifies one text of an answer as it grows, and releases the parts that may be sent.

The decisions are in ``Window`` and ``CheckSchedule``. This file runs the checks beside the stream: one task for each
text at most, and a timer while text waits for a check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from safety.api import (
    Action,
    ClassifierUnavailableError,
    Inspection,
    Origin,
    Release,
    Scores,
    Span,
    StreamScanner,
    Verdict,
)
from safety.streaming.check_schedule import CheckSchedule, Due
from safety.streaming.continued_scanner import ContinuedScanner
from safety.streaming.plan import ClassifierRule, ScannerRule, StreamPlan
from safety.streaming.window import Window

MAX_GATHERED = 64
"""The characters that gather before they are scanned, while text waits for the classifier: a scan costs as much for one
token as for ten."""

MAX_REPORTED_SPANS = 1000
"""The most spans of one rule that a verdict names, so that an endless answer does not fill the memory."""


class StreamModerator:
    """The checks of one text. Implements ``TextModerator``. ``plan`` holds the rules for texts of ``origin``. The text
    continues ``before``. ``notify`` is called when a check has ended.

    Scanners that may halt the text read each piece when it arrives. Where text is held for the classifier, the others
    read several pieces together, before any of these is released.
    """

    def __init__(self, origin: Origin, plan: StreamPlan, notify: Callable[[], None], before: str = "") -> None:
        self._origin = origin
        self._window = Window()
        scanners = [_Scanner(rank, rule, _made(rule, before)) for rank, rule in enumerate(plan.scanners)]
        holds = plan.classifier is not None and plan.classifier.mode == "hold"
        self._immediate = [each for each in scanners if not holds or each.rule.action is Action.BLOCK]
        self._deferred = [] if not holds else [each for each in scanners if each.rule.action is not Action.BLOCK]
        self._scanners = scanners
        self._gathered: list[str] = []  # the pieces that the deferred scanners have not read
        self._gathered_length = 0
        self._final = False
        self._halt: Verdict | None = None
        self._checks = None if plan.classifier is None else _Checks(plan.classifier, self._judged, notify, before)

    @property
    def halted(self) -> bool:
        """Whether a verdict has ended the text."""
        return self._halt is not None

    @property
    def held(self) -> int:
        """The number of characters that have arrived and are not released."""
        return self._window.length - self._window.sent

    def push(self, piece: str, *, final: bool = False) -> Release:
        """Takes the next piece, and may start a check. Raises the unexpected exception of an earlier check, if there
        was one. ``final``: no piece follows."""
        if self._halt is not None or self._final:
            return self._release()
        self._final = final
        if piece or final:
            self._take(piece)
        if self._checks is not None:
            if self._halt is None:
                self._checks.push(piece, final)
            else:
                self._checks.stop()
        return self._release()

    def resume(self) -> Release:
        """Returns the text that finished checks have released since the last call. Raises the unexpected exception of a
        check, if there was one."""
        return self._release()

    async def close(self) -> Inspection:
        """Cancels the running check, and returns the record of the text."""
        covered = {f"{each.rule.name}@{each.rule.version}": each.read for each in self._scanners}
        verdicts = [verdict for each in self._scanners for verdict in each.verdicts()]
        if self._checks is not None:
            await self._checks.close()
            covered[self._checks.name] = self._checks.covered
            verdicts += self._checks.verdicts
        return Inspection(self._origin, self._window.length, self._window.sent, covered, tuple(verdicts))

    def _take(self, piece: str) -> None:
        """Adds ``piece`` to the text. Sets ``_halt`` if a scanner blocks it."""
        self._window.push(piece)
        blocked = [(span, each.rule) for each in self._immediate if (span := self._scan(each, piece)) is not None]
        if blocked:
            span, rule = min(blocked, key=lambda found: found[0].start)
            self._window.halt(span.start)
            self._halt = Verdict(rule.name, rule.version, Action.BLOCK, span.kind, spans=(span,))
        if self._deferred:
            self._gathered.append(piece)
            self._gathered_length += len(piece)
            if self._final or self._gathered_length >= MAX_GATHERED:
                self._scan_gathered()

    def _scan_gathered(self) -> None:
        """Has the deferred scanners read the pieces that have gathered."""
        piece = "".join(self._gathered)
        self._gathered, self._gathered_length = [], 0
        for each in self._deferred:
            self._scan(each, piece)

    def _scan(self, each: _Scanner, piece: str) -> Span | None:
        """Has a scanner read ``piece``. Returns the first span that it blocks."""
        scan = each.scanner.push(piece, final=self._final)
        each.read += len(piece)
        each.settled = scan.settled
        if not scan.found:
            return None
        each.add(scan.found)
        if each.rule.action is Action.REDACT:
            self._window.replace(scan.found, each.rank)
        return scan.found[0] if each.rule.action is Action.BLOCK else None

    def _judged(self, verdict: Verdict) -> None:
        """Takes the verdict of a check of the classifier."""
        if verdict.action is Action.BLOCK and self._halt is None:
            self._halt = verdict

    def _release(self) -> Release:
        window, checks = self._window, self._checks
        end, complete = window.length, True
        if checks is not None:
            checks.raise_fault()
            end, complete = checks.released(end), checks.complete
        if self._gathered and end > window.sent:
            self._scan_gathered()
        for each in self._scanners:
            if each.settled < end:
                end = each.settled
        text, replaced = window.release(end)
        done = self._halt is not None or (self._final and complete and window.sent == window.length)
        return Release(text, window.sent, replaced, self._halt, done)


def _made(rule: ScannerRule, before: str) -> StreamScanner:
    return ContinuedScanner(rule.make, before) if before else rule.make()


@dataclass(slots=True)
class _Scanner:
    """A scanner with its rule, the rank of the rule in the plan, and the spans that it has found. ``read`` counts the
    characters that it has read; before ``settled`` it will find nothing more."""

    rank: int
    rule: ScannerRule
    scanner: StreamScanner
    spans: list[Span] = field(default_factory=list)
    read: int = 0
    settled: int = 0

    def add(self, spans: Sequence[Span]) -> None:
        self.spans += spans[: MAX_REPORTED_SPANS - len(self.spans)]

    def verdicts(self) -> list[Verdict]:
        """Returns a verdict for each kind that was found."""
        rule, kinds = self.rule, dict.fromkeys(span.kind for span in self.spans)
        by_kind = {kind: tuple(span for span in self.spans if span.kind == kind) for kind in kinds}
        return [Verdict(rule.name, rule.version, rule.action, kind, spans=spans) for kind, spans in by_kind.items()]


class _Checks:
    """The classifier's checks of one text. ``on_verdict`` gets their verdicts; ``notify`` is called after each check.

    ``verdicts`` are those of the checks that found something or failed; ``covered`` counts the characters that were
    scored.
    """

    def __init__(
        self,
        rule: ClassifierRule,
        on_verdict: Callable[[Verdict], None],
        notify: Callable[[], None],
        before: str = "",
    ) -> None:
        self._rule = rule
        self._on_verdict = on_verdict
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._schedule = CheckSchedule(rule.pace, before, rule.recent)
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle | None = None
        self._wakes_at = 0.0  # of the timer, which does not say so itself on every event loop
        self._stopped = False
        self._fault: BaseException | None = None
        self.verdicts: list[Verdict] = []
        self.covered = 0

    @property
    def name(self) -> str:
        """The name of the check with the version of its classifier, as of now."""
        return f"{self._rule.name}@{self._rule.classifier.version}"

    @property
    def complete(self) -> bool:
        """Whether all text that has arrived is checked."""
        return self._schedule.complete

    def released(self, length: int) -> int:
        """Returns the offset up to which the checks release a text of ``length``."""
        return length if self._rule.mode == "beside" else self._schedule.approved

    def push(self, piece: str, final: bool) -> None:
        """Takes the next piece. Starts a check if one is due, otherwise the timer of the next one."""
        self._schedule.push(piece, self._loop.time(), final=final)
        self._start()

    def stop(self) -> None:
        """Ends the running check and starts no other."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Stops, and returns when no task is left."""
        self.stop()
        if self._task is not None:
            await asyncio.wait({self._task})
        self._notify, self._on_verdict = _nothing, _dropped  # they hold what holds these checks

    def raise_fault(self) -> None:
        """Raises what a check raised that its contract does not have."""
        if self._fault is not None:
            raise self._fault

    def _start(self) -> None:
        due_at = None if self._stopped or self._task is not None else self._schedule.due_at()
        if due_at is None:
            return
        waits = due_at > self._loop.time()
        if self._timer is not None:
            if waits and self._wakes_at <= due_at:
                return  # it looks again then; to set a timer for each token would cost more than the rest of this
            self._timer.cancel()
            self._timer = None
        if waits:
            self._timer, self._wakes_at = self._loop.call_at(due_at, self._wake), due_at
        else:
            self._task = self._loop.create_task(self._run())
            self._task.add_done_callback(self._ended)

    def _wake(self) -> None:
        self._timer = None
        self._start()

    async def _run(self) -> None:
        """Runs checks one after the other until none is due."""
        while not self._stopped and (due := self._schedule.begin(self._loop.time())) is not None:
            verdict = await self._judge(due)
            self._stopped = verdict is not None and verdict.action is Action.BLOCK
            if not self._stopped:
                self._schedule.finish(due, self._loop.time())
            if verdict is not None:
                self._report(verdict)
            self._notify()

    def _report(self, verdict: Verdict) -> None:
        """Keeps a verdict. Of a classifier that goes on failing, the first failure says it."""
        if verdict.error is None or all(each.error is None for each in self.verdicts):
            self.verdicts.append(verdict)
        self._on_verdict(verdict)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = fault
            self._notify()
        self._start()

    async def _judge(self, due: Due) -> Verdict | None:
        """Classifies and returns the verdict, whose span is the new text of the check; None: the text is harmless."""
        rule = self._rule
        urgent = rule.awaited and not self._schedule.approved  # nothing of the text was sent
        try:
            scores = await rule.classifier.classify([due.text], urgent=urgent)
            verdict = rule.judge(_only(scores))
        except ClassifierUnavailableError as error:
            return Verdict(rule.name, rule.classifier.version, rule.on_failure, error=str(error) or "unavailable")
        new = Span(self._schedule.approved, due.end, "" if verdict is None else verdict.category)
        self.covered += new.end - new.start
        return None if verdict is None else replace(verdict, spans=(new,))


def _nothing() -> None:
    """Does nothing: after the checks are closed none ends."""


def _dropped(verdict: Verdict) -> None:
    """Does nothing: after the checks are closed there is no verdict."""


def _only(scores: Sequence[Scores]) -> Scores:
    """Returns the scores of one text. Raises ClassifierUnavailableError for another number of them, or scores that are
    no probabilities: NaN is below every threshold."""
    if len(scores) != 1:
        raise ClassifierUnavailableError(f"the classifier answered {len(scores)} texts instead of 1")
    if not all(0 <= score <= 1 for score in (scores[0].injection, *scores[0].categories.values())):
        raise ClassifierUnavailableError("the classifier's scores are no probabilities")
    return scores[0]
