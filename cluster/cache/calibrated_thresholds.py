"""``Thresholds``: the pair score from which a stored question counts as a hit, recalibrated by the judgements of hits.

``router.cache.hit_threshold`` decides; this class reads the evidence and keeps the results.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from cluster.cache.question_store import QuestionStore
from router.cache.calibration_table import CalibrationTable
from router.cache.hit_threshold import Evidence, Judged, recalibrated
from router.ports.answer_cache import HitFeedback, HitJudge
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

FRESH_S = 300.0
"""Seconds after which the evidence is read again, by the next look-up: other replicas add to it."""


class Thresholds:
    """Returns thresholds when called, and keeps them calibrated in one replica. ``table`` is the calibration table that
    ships with the scorer."""

    def __init__(self, table: CalibrationTable, questions: QuestionStore, clock: Clock) -> None:
        self._table = table
        self._questions = questions
        self._clock = clock
        self._evidence = Evidence()
        self._found: dict[float, float] = {}
        self._read_at_s: float | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """The version of the scorer that the thresholds are valid for."""
        return self._table.version

    def __call__(self, max_false_hit_rate: float) -> float:
        """Returns the threshold for a bound, by the evidence read last. Starts to read it if that was long ago."""
        if self._read_at_s is None or self._clock.monotonic() - self._read_at_s >= FRESH_S:
            self.refresh()
        found = self._found.get(max_false_hit_rate)
        if found is None:
            found = self._found[max_false_hit_rate] = recalibrated(self._table, max_false_hit_rate, self._evidence)
        return found

    def refresh(self) -> None:
        """Starts to read the judgements in the background, unless that is under way. The thresholds change when they
        have been read."""
        self._read_at_s = self._clock.monotonic()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self.read())

    async def read(self) -> None:
        """Reads the judgements and recalibrates the thresholds. If Redis does not answer, the thresholds stay as they
        are."""
        try:
            self._evidence = evidence(await self._questions.judgements(self.version))
        except StateUnavailableError as error:
            logger.warning("the thresholds of the semantic cache stay as they are: %s", error)
            return
        bounds = list(self._found)
        self._found = {
            bound: await asyncio.to_thread(recalibrated, self._table, bound, self._evidence) for bound in bounds
        }


def evidence(judgements: Sequence[HitFeedback]) -> Evidence:
    """Returns ``judgements`` as evidence for recalibration.

    Hits whose answer was also generated for comparison are a random sample of all hits. Hits that clients call wrong
    are not. Hits that clients call right are ignored, since few clients report these. Exact hits have no score, and are
    ignored too.
    """
    scored = [each for each in judgements if each.score is not None and 0 <= each.score <= 1]
    return Evidence(
        judged=[
            Judged(each.score, not each.wrong)
            for each in scored
            if each.judge is HitJudge.SHADOW and each.score is not None
        ],
        reported=[
            each.score for each in scored if each.judge is HitJudge.CLIENT and each.wrong and each.score is not None
        ],
    )
