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
    thresholds: Mapping[str, Mapping[str, float]]
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
                thresholds_table(self.thresholds, self.calibration),
                "",
                "## Training mix",
                "",
                f"Base: {self.base}. Seed {self.seed}, {self.minutes:g} minutes with a part of one core.",
                f"{sum(self.counts.values()):,} texts, and {self.development:,} for calibration. `twins:` are made by the",
                "rules in deployments/models/training/safety/twins.py.",
                "deployments/models/training/safety/twins.py.",
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


def thresholds_table(
    thresholds: Mapping[str, Mapping[str, float]], calibration: Mapping[str, tuple[float, float]]
) -> str:
    lines = ["| label | flag | review | block | scale | offset |", "| --- | --- | --- | --- | --- | --- |"]
    for label in LABELS:
        at = thresholds[label]
        scale, offset = calibration[label]
        lines.append(
            f"| {label} | {at['flag']:.3f} | {at['review']:.3f} | {at['block']:.3f} | {scale:.2f} | {offset:.2f} |"
        )
    return "\n".join(lines)
