"""The part of the classifier's card that is about the second opinion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deployments.models.training.safety.card import reliability_table
from deployments.models.training.safety.evaluation import table
from deployments.models.training.safety.second.cascade import CascadeFit
from safety.classifier.artefact import SecondOpinion

TITLE: Final = "## With the second opinion"
PROSE: Final = """\
{base} (Apache-2.0): its layers {first} to {last} were trained on the same mix, with a head for all labels over
[mean of the text's last hidden states; that of the turn's end]. The layers below are as published. It is asked about a
window of less than {most} tokens if the first model gives any label {gate:g} or more. Then the score is the sigmoid of
a weighted sum of both logits; the second model's weight is {weight:g}. Without the base the first model answers
alone, with the figures above.

Texts longer than 128 tokens were cut to windows. Of harmless ones up to three were trained on, of those with harm none,
since nothing says which window has it. Both were judged as the service runs them: in int8, on the windows of the first
model. `asked` is the share of a set's windows that the second one read."""


def section(fitted: CascadeFit, second: SecondOpinion, weight: float) -> str:
    """Returns the Markdown of the part. ``weight`` is that of the second model in the mean."""
    parts = [TITLE, prose(second, weight), table(fitted.fitted.figures), asked_table(fitted.asked)]
    return "\n\n".join([*parts, reliability_table(fitted.fitted.reliability)]) + "\n"


def prose(second: SecondOpinion, weight: float) -> str:
    """Returns what the second opinion is."""
    return PROSE.format(
        base=second.base,
        first=second.tuned_from + 1,
        last=second.layers,
        gate=second.gate,
        most=second.max_tokens,
        weight=weight,
    )


def asked_table(asked: Mapping[str, float]) -> str:
    return "\n".join(
        ["| set | asked |", "| --- | --- |", *(f"| {name} | {part:.2f} |" for name, part in asked.items())]
    )


def with_section(card: str, part: str) -> str:
    """Returns ``card`` with ``part`` at its end, in place of an earlier one."""
    return f"{card.partition(TITLE)[0].rstrip()}\n\n{part}"
