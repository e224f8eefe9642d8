"""The card of a classifier that was trained in folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from deployments.models.training.safety.card import calibration_table, reliability_table
from deployments.models.training.safety.evaluation import Figures, table
from deployments.models.training.safety.fit import Fit
from deployments.models.training.safety.folds.mix import UNLIKE_STATES
from deployments.models.training.safety.folds.out_of_fold import in_no_half
from deployments.models.training.safety.halves import HALVES
from deployments.models.training.safety.second.card import TITLE, asked_table, prose
from deployments.models.training.safety.second.cascade import CascadeFit
from safety.classifier.artefact import SecondOpinion

APART: Final = """\
Each set is judged by weights that were not trained on it. A set with \\* took part in calibration or thresholds, so its
figures are no forecast. Recall counts what any label flags; in brackets what the injection label flags alone."""
SHIPPED: Final = """\
The weights that ship, at the same thresholds. Figures with (seen) are **in-sample**: one fold was trained on the set.
They show that nothing broke in the mean, and are no forecast. The others are of sets that no fold was trained on."""
RELIABILITY: Final = """\
Of texts with a score in the band, the share that is harmful, on sets that nothing was fitted to, by the fold that left
them out:"""
THRESHOLDS: Final = """\
Every label is flagged, and reviewed, at 0.6, and blocked at 0.85. The offsets were chosen so that at most 0.8 % of the
everyday requests in the sets marked \\* are flagged by any label, and 5 % of the borderline ones. `balanced` is the
score of that point if harmful texts are as many as harmless ones."""


@dataclass(frozen=True, slots=True)
class Figured:
    """``apart``: figures by weights that did not see the set. ``shipped``: those of the mean of the folds."""

    apart: Sequence[Figures]
    shipped: Sequence[Figures]

    def markdown(self) -> str:
        seen = [row if in_no_half(row.judge) else replace(row, judge=f"{row.judge} (seen)") for row in self.shipped]
        return "\n\n".join([table(self.apart), SHIPPED, table(seen)])


@dataclass(frozen=True, slots=True)
class Card:
    """``minutes`` and ``replayed``, texts of the mix, are of each fold, for the first model and for the second
    one. ``trained``: texts of each half by source. ``weight``: of the second model in the mean.
    ``prose`` is Markdown."""

    version: str
    seed: int
    minutes: tuple[float, float]
    replayed: tuple[int, int]
    trained: Sequence[Mapping[str, int]]
    prose: str
    alone: Figured
    fitted: Fit
    second: SecondOpinion
    weight: float
    both: Figured
    cascade: CascadeFit

    def markdown(self) -> str:
        parts = [
            f"# Safety classifier {self.version}",
            self.prose.strip(),
            "## Figures of the first model alone",
            APART,
            self.alone.markdown(),
            RELIABILITY,
            reliability_table(self.fitted.reliability),
            THRESHOLDS,
            calibration_table(self.fitted.balanced, self.fitted.calibration),
            TITLE,
            prose(self.second, self.weight),
            self.both.markdown(),
            asked_table(self.cascade.asked),
            reliability_table(self.cascade.fitted.reliability),
            "## Training of the folds",
            self.training(),
        ]
        return "\n\n".join(parts) + "\n"

    def training(self) -> str:
        first, second = self.minutes
        texts, states = self.replayed
        parts = [
            f"Seed {self.seed}. Each fold, of one core: {first:g} minutes for the first model, with the written\n"
            f"texts, {texts:,} others of the mix, and harmless texts in other languages, code and JSON;\n"
            f"{second:g} minutes for the second model, with the written texts, {states:,} others of the mix, and\n"
            f"{UNLIKE_STATES} of these harmless texts."
        ]
        for number, (half, counts) in enumerate(zip(HALVES, self.trained, strict=True), 1):
            sources = (f"{name} {count:,} (× {half.copies[name]})" for name, count in sorted(counts.items()))
            parts.append(f"Half {number}, which the fold read that the other half judges: {', '.join(sources)}.")
        return "\n\n".join(parts)
