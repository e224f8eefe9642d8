"""The card of the pair model: what it was trained on, how it was judged, and what it cannot know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.pair_scorer.pair_model_files import Combination
from load_tests.cache.table import SetFigures, markdown
from router.cache.calibration_table import CalibrationTable


@dataclass(frozen=True, slots=True)
class Card:
    """``counts``: pairs in the training mix by source. ``run``: what was spent on training, in words."""

    version: str
    run: str
    seed: int
    counts: Mapping[str, int]
    combination: Combination
    table: CalibrationTable
    figures: list[SetFigures]
    prose: str

    def markdown(self) -> str:
        weights = self.combination
        sources = sorted(self.counts.items(), key=lambda each: -each[1])
        return "\n".join(
            [
                f"# Pair model {self.version}",
                "",
                self.prose.strip(),
                "",
                "## Calibration",
                "",
                f"{self.table.different + self.table.same:,} Quora pairs that neither training nor tests have seen,",
                f"{self.table.different:,} of them different. P(same) = sigmoid({weights.pair:.3f} x output +",
                f"{weights.cosine:.3f} x cosine + {weights.offset:.3f}).",
                "",
                "## Figures",
                "",
                "On pairs whose questions are in no training pair, with the weights that ship. `hits at 1 %`: the",
                "share of the set's pairs of that kind that are hits at the shipped threshold for a bound of 1 %, in",
                "brackets without the guard.",
                "",
                markdown(self.figures),
                "",
                "## Training mix",
                "",
                f"Seed {self.seed}; {self.run}. {sum(self.counts.values()):,} pairs:",
                "",
                "| source | pairs |",
                "| --- | --- |",
                *(f"| {name} | {count:,} |" for name, count in sources),
                "",
            ]
        )
