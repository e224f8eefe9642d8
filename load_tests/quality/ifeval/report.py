"""IFEval's scores for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from load_tests.quality.ifeval.score import Accuracy, IfevalScore, by_group, ifeval_score, judged
from load_tests.quality.report import by_part, score_json
from load_tests.quality.set_run import SetRun


def ifeval_tables(run: SetRun) -> Iterator[str]:
    """Strict accuracy by kind of instruction, then a row per model: four accuracies, each with its standard error."""
    models = {model: judged(outcomes) for model, outcomes in run.by_model().items()}
    yield by_part(f"{run.name}, instructions", {model: by_group(pairs) for model, pairs in models.items()})
    heads = [field.name.replace("_", " ") for field in fields(IfevalScore)]
    lines = ["", f"{run.name:<16}" + "".join(f"{head:>20}" for head in heads)]
    for model, pairs in models.items():
        cells = (_cell(accuracy) for accuracy in _accuracies(ifeval_score(pairs)).values())
        lines.append(f"{model:<16}" + "".join(f"{cell:>20}" for cell in cells))
    yield "\n".join(lines)


def ifeval_json(run: SetRun) -> dict[str, Any]:
    """For each model its four accuracies, and strict accuracy by kind of instruction."""
    document = {}
    for model, outcomes in run.by_model().items():
        pairs = judged(outcomes)
        accuracies = _accuracies(ifeval_score(pairs))
        document[model] = {
            **{name: score_json(one.score) | {"standard_error": one.error} for name, one in accuracies.items()},
            "groups": {group: score_json(score) for group, score in by_group(pairs).items()},
        }
    return document


def _accuracies(score: IfevalScore) -> dict[str, Accuracy]:
    return {field.name: getattr(score, field.name) for field in fields(score)}


def _cell(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.score.share:.1f} ± {100 * accuracy.error:.1f} %"
