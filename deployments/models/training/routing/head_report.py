"""How well a forecaster foretells a tier, on requests that it was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeadReport:
    """One tier. ``expected`` is the mean chance, ``right`` what came true; losses are in nats; ``base_loss`` is that of
    always forecasting ``right``, and ``auc`` the chance that a request answered right is given more than one answered
    wrong (0.5 tells nothing)."""

    tier: str
    right: float
    expected: float
    log_loss: float
    base_loss: float
    brier: float
    auc: float


def head_report(tier: str, chances: Sequence[float], outcomes: Sequence[bool]) -> HeadReport:
    """Returns the report of ``tier``. ``chances`` are above 0 and below 1, one per request."""
    count = len(outcomes)
    share = sum(outcomes) / count
    pairs = list(zip(chances, outcomes, strict=True))
    return HeadReport(
        tier=tier,
        right=share,
        expected=sum(chances) / count,
        log_loss=-sum(math.log(chance if outcome else 1 - chance) for chance, outcome in pairs) / count,
        base_loss=-sum(part * math.log(part) for part in (share, 1 - share) if part),
        brier=sum((chance - outcome) ** 2 for chance, outcome in pairs) / count,
        auc=area_under_curve(chances, outcomes),
    )


def area_under_curve(chances: Sequence[float], outcomes: Sequence[bool]) -> float:
    """The area under the ROC curve by ranks (Mann and Whitney 1947), ties counting half; NaN if all outcomes agree."""
    good = sum(outcomes)
    bad = len(outcomes) - good
    if not good or not bad:
        return math.nan
    wins, worse = 0.0, 0  # bad ones of lower chances so far
    ranked = sorted(zip(chances, outcomes, strict=True))
    start = 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        equal_good = sum(outcome for _, outcome in ranked[start:end])
        equal_bad = end - start - equal_good
        wins += equal_good * (worse + equal_bad / 2)
        worse += equal_bad
        start = end
    return wins / (good * bad)
