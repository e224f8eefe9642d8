"""``CalibratedThresholds``: the score from which on a stored question answers another, calibrated anew for each tenant.

``router.cache.hit_threshold`` decides; this class reads the evidence and keeps the results.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cluster.cache.ports import QuestionStore
from cluster.state.pair_judgement import PairJudgement
from router.cache.calibration_table import CalibrationTable
from router.cache.hit_threshold import Evidence, Judged, recalibrated
from router.ports.answer_cache import HitJudge
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

FRESH_S = 300.0
"""Seconds after which a tenant's evidence is read again, by its next look-up: other replicas add to it."""
MAX_TENANTS = 1000
"""Tenants whose evidence is kept in memory, those with the latest look-ups."""
MAX_REPORTS = 50  # of clients that count for a tenant
MAX_REPORTS_OF_ONE = 5
"""Reports of one client that count: a client that calls everything wrong raises its tenant's threshold a little."""


@dataclass(slots=True)
class _Tenant:
    """What is known of a tenant. ``found`` has its thresholds by bound."""

    evidence: Evidence = field(default_factory=Evidence)
    found: dict[float, float] = field(default_factory=dict)
    read_at_s: float | None = None
    reading: asyncio.Task[None] | None = None


class CalibratedThresholds:
    """The thresholds of one replica. ``table`` is that of the scorer that ships. A tenant's evidence moves its own
    threshold alone."""

    def __init__(self, table: CalibrationTable, questions: QuestionStore, clock: Clock) -> None:
        self._table = table
        self._questions = questions
        self._clock = clock
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    @property
    def version(self) -> str:
        """The version of the scorer that the thresholds are valid for."""
        return self._table.version

    def __call__(self, tenant: str, max_false_hit_rate: float) -> float:
        """Returns the tenant's threshold for a bound, by the evidence read last. Starts to read it anew if that was
        FRESH_S ago or more."""
        known = self._known(tenant)
        if known.read_at_s is None or self._clock.monotonic() - known.read_at_s >= FRESH_S:
            self.refresh(tenant)
        found = known.found.get(max_false_hit_rate)
        if found is None:
            found = known.found[max_false_hit_rate] = recalibrated(self._table, max_false_hit_rate, known.evidence)
        return found

    def refresh(self, tenant: str) -> None:
        """Starts to read a tenant's evidence, unless that is under way. The thresholds change when it has been read."""
        known = self._known(tenant)
        known.read_at_s = self._clock.monotonic()
        if known.reading is None or known.reading.done():
            known.reading = asyncio.create_task(self.read(tenant))

    async def read(self, tenant: str) -> None:
        """Reads a tenant's evidence. If Redis does not answer, logs that, and the former evidence counts."""
        known = self._known(tenant)
        try:
            known.evidence = evidence(await self._questions.judgements(tenant, self.version))
        except StateUnavailableError as error:
            logger.warning("the thresholds of the semantic cache stay as they are: %s", error)
            return
        bounds = list(known.found)
        known.found = {
            bound: await asyncio.to_thread(recalibrated, self._table, bound, known.evidence) for bound in bounds
        }

    def _known(self, tenant: str) -> _Tenant:
        known = self._tenants.setdefault(tenant, _Tenant())
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > MAX_TENANTS:
            self._tenants.popitem(last=False)
        return known


def evidence(judgements: Sequence[PairJudgement]) -> Evidence:
    """Returns the evidence in the judgements of one tenant, which come newest first.

    Shadow hits and near misses are a random sample of look-ups, and become ``judged``. Hits that clients call wrong are
    no random sample, and become ``reported``. Hits that clients call right are left out, since few clients report them.
    Each pair of questions counts once, by its newest judgement.
    """
    scored = [each for each in judgements if 0 <= each.score <= 1]
    compared = _once(each for each in scored if each.judge is not HitJudge.CLIENT)
    reported = _once(each for each in scored if each.judge is HitJudge.CLIENT and each.wrong)
    return Evidence(
        judged=[Judged(each.score, not each.wrong, each.weight) for each in compared],
        reported=[each.score for each in _fairly(reported)][:MAX_REPORTS],
    )


def _once(judgements: Iterable[PairJudgement]) -> Iterator[PairJudgement]:
    """Yields the first judgement of each pair. One whose pair is not known counts too."""
    seen: set[str] = set()
    for each in judgements:
        if not each.pair or each.pair not in seen:
            yield each
        seen.add(each.pair)


def _fairly(reports: Iterable[PairJudgement]) -> Iterator[PairJudgement]:
    """Yields the first MAX_REPORTS_OF_ONE reports of each client."""
    counts: Counter[str] = Counter()
    for each in reports:
        counts[each.who] += 1
        if counts[each.who] <= MAX_REPORTS_OF_ONE:
            yield each
