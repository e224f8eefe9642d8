"""IFEval's four accuracies: of prompts and of instructions, strict and loose (section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from load_tests.quality.ifeval.prompt import IfevalPrompt, Verdict
from load_tests.quality.outcome import Outcome
from load_tests.quality.score import Score, clustered_error

Judged = tuple[IfevalPrompt, Verdict]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share and its standard error, 0 to 1 both; the instructions of one prompt stand or fall together."""

    score: Score
    error: float


@dataclass(frozen=True, slots=True)
class IfevalScore:
    """One model's four accuracies."""

    prompt_strict: Accuracy
    prompt_loose: Accuracy
    instruction_strict: Accuracy
    instruction_loose: Accuracy


def judged(outcomes: Iterable[Outcome]) -> list[Judged]:
    """Each prompt with its verdict; a request that failed follows nothing. Raises TypeError for another set's items."""
    pairs = []
    for outcome in outcomes:
        if not isinstance(outcome.item, IfevalPrompt):
            raise TypeError(f"{outcome.item.id} is no prompt of IFEval")
        pairs.append((outcome.item, outcome.item.judge(outcome.reply.text if outcome.reply.problem is None else "")))
    return pairs


def ifeval_score(pairs: Sequence[Judged]) -> IfevalScore:
    """The four accuracies of what was asked."""
    strict = [verdict.strict for _, verdict in pairs]
    loose = [verdict.loose for _, verdict in pairs]
    return IfevalScore(
        prompt_strict=_accuracy([(all(marks),) for marks in strict]),
        prompt_loose=_accuracy([(all(marks),) for marks in loose]),
        instruction_strict=_accuracy(strict),
        instruction_loose=_accuracy(loose),
    )


def by_group(pairs: Iterable[Judged]) -> dict[str, Score]:
    """Strict accuracy of each kind of instruction, by its name."""
    groups: dict[str, list[bool]] = {}
    for group, mark in _marks(pairs):
        groups.setdefault(group, []).append(mark)
    return {group: Score(sum(groups[group]), len(groups[group])) for group in sorted(groups)}


def _marks(pairs: Iterable[Judged]) -> Iterator[tuple[str, bool]]:
    for prompt, verdict in pairs:
        for instruction, mark in zip(prompt.instructions, verdict.strict, strict=True):
            yield instruction.group, mark


def _accuracy(clusters: Sequence[Sequence[bool]]) -> Accuracy:
    return Accuracy(Score(sum(map(sum, clusters)), sum(map(len, clusters))), clustered_error(clusters))
