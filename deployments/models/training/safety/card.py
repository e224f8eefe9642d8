"""The card of the classifier: what it was trained on, how it was judged, and what it cannot know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.models.training.safety.evaluation import Figures, share, table
from deployments.models.training.safety.labels import LABELS


@dataclass(frozen=True, slots=True)
class Card:
    """``counts`` are texts in the training mix by source; ``losses`` compares int8 with float32, by judge."""

    version: str
    minutes: float
    base: str
    seed: int
    counts: Mapping[str, int]
    development: int
    figures: Sequence[Figures]
    balanced: Mapping[str, float]
    calibration: Mapping[str, tuple[float, float]]
    reliability: Mapping[str, list[tuple[float, float, float, int]]]
    int8_difference: tuple[float, float]
    prose: str

    def markdown(self) -> str:
        largest, mean = self.int8_difference
        return "\n".join(
            [
                f"# Safety classifier {self.version}",
                "",
                self.prose.strip(),
                "",
                "## Figures",
                "",
                "Thresholds are those that ship. A set with \\* took part in calibration or thresholds, so its figures",
                "are no forecast; on no set here was anything trained. Recall counts what any label flags; in brackets",
                "what the injection label flags alone.",
                "",
                table(self.figures),
                "",
                f"int8 against float32 weights: the scores differ by {mean:.4f} on average and {largest:.3f} at most.",
                "",
                "## Reliability",
                "",
                "Of texts with a score in the band, the share that is harmful, on sets that nothing was fitted to.",
                "",
                reliability_table(self.reliability),
                "",
                "## Thresholds",
                "",
                "Every label is flagged, and reviewed, at 0.6, and blocked at 0.85. The offsets were chosen so that at",
                "most 0.8 % of the everyday requests in the sets marked \\* are flagged by any label, and 5 % of the",
                "borderline ones. `balanced` is the score of that point if harmful texts are as many as harmless ones.",
                "",
                calibration_table(self.balanced, self.calibration),
                "",
                "## Training mix",
                "",
                f"Base: {self.base}. Seed {self.seed}, {self.minutes:g} minutes with a part of one core.",
                f"{sum(self.counts.values()):,} texts, and {self.development:,} for calibration. `twins:` are made by",
                "the rules in deployments/models/training/safety/twins.py.",
                "",
                ", ".join(f"{name} {number:,}" for name, number in sorted(self.counts.items())),
                "",
            ]
        )


def reliability_table(rows: Mapping[str, list[tuple[float, float, float, int]]]) -> str:
    lines = ["| label | scores up to | mean score | harmful | texts |", "| --- | --- | --- | --- | --- |"]
    for label, bins in rows.items():
        lines += [
            f"| {label} | {edge:.1f} | {share(mean)} | {share(rate)} | {number} |" for edge, mean, rate, number in bins
        ]
    return "\n".join(lines)


def calibration_table(balanced: Mapping[str, float], calibration: Mapping[str, tuple[float, float]]) -> str:
    lines = ["| label | balanced | scale | offset |", "| --- | --- | --- | --- |"]
    for label in LABELS:
        scale, offset = calibration[label]
        lines.append(f"| {label} | {balanced[label]:.3f} | {scale:.2f} | {offset:.2f} |")
    return "\n".join(lines)
