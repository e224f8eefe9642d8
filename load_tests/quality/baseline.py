"""The stored result that later runs are held against: ``deployments/models/quality.json``.

Each set's part belongs to one file of questions, known by its hash, and says of every item whether each tier had it
right; so a later run, of all items or of some, is compared on the very items it asked. Of a few items it also keeps the
words: a change too small to cost right answers still shows there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from load_tests.quality.options import IFEVAL, OPEN, TASKS
from load_tests.quality.outcome import Outcome
from load_tests.quality.question import Question, QuestionSet, stratified
from load_tests.quality.score import Score, score, scores
from load_tests.quality.set_run import SetRun

SAMPLE = 3  # tasks of each family and level whose replies are kept: what the smoke test has time to ask again

# Replies kept of each set, per family and level. One of each topic of the open questions shows how a model talks.
# None of IFEval's: where an answer of 512 tokens leaves the stored one says nothing, and the texts would fill the file.
REPLIES_KEPT = {TASKS: SAMPLE, OPEN: 1, IFEVAL: 0}


class BaselineTier(BaseModel):
    """One model's result. ``right`` has a mark per item, in the order of the file: 1 or 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overall: float  # share of right answers, 0 to 1
    families: dict[str, float]
    right: str
    replies: dict[str, str]


class SetBaseline(BaseModel):
    """Results of the tiers on one file of questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    items: int
    max_tokens: int
    tiers: dict[str, BaselineTier]

    def marks(self, model: str, questions: QuestionSet[Question]) -> dict[str, bool]:
        """For each item's id whether ``model`` had it right. Raises KeyError for a model without a result."""
        pairs = zip(questions.items, self.tiers[model].right, strict=True)
        return {item.id: mark == "1" for item, mark in pairs}

    def require(self, questions: QuestionSet[Question], max_tokens: int) -> None:
        """Raises ValueError unless the baseline was measured on this very file with the same ``max_tokens``."""
        if self.sha256 != questions.sha256 or self.items != len(questions.items):
            raise ValueError(f"the baseline is of another file than {questions.path}; write it again")
        if self.max_tokens != max_tokens:
            raise ValueError(f"the baseline was measured with --max-tokens {self.max_tokens}, not {max_tokens}")


class Baseline(BaseModel):
    """The results on every set, by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: dict[str, SetBaseline]


def read_baseline(path: Path) -> Baseline:
    """Raises OSError for a missing file and ValueError for one that is no baseline."""
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no baseline: {error}") from None


def make_baseline(runs: Iterable[SetRun], earlier: Baseline | None = None) -> Baseline:
    """A baseline of complete runs. Of ``earlier`` stay the sets that did not run, and of those that did the tiers that
    did not run, if they were measured on the same file with the same number of tokens.

    Raises ValueError for a run that lacks items or has requests that failed.
    """
    sets = dict(earlier.sets) if earlier is not None else {}
    for run in runs:
        sets[run.name] = _set_baseline(run, sets.get(run.name))
    return Baseline(sets=sets)


def dump(baseline: Baseline) -> str:
    """The file's text: stable, and with a line per reply, so that a change reads well in review."""
    content: dict[str, Any] = baseline.model_dump()
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _set_baseline(run: SetRun, earlier: SetBaseline | None) -> SetBaseline:
    questions, tiers = run.questions, dict[str, BaselineTier]()
    if earlier is not None and (earlier.sha256, earlier.max_tokens) == (questions.sha256, run.max_tokens):
        tiers |= earlier.tiers
    sample = {item.id for item in stratified(questions.items, REPLIES_KEPT[run.name])}
    for model, mine in run.by_model().items():
        if tuple(outcome.item for outcome in mine) != questions.items:
            raise ValueError(f"{model} was not asked every item of the set {run.name}")
        failed = sum(outcome.reply.problem is not None for outcome in mine)
        if failed:
            raise ValueError(f"{failed} requests of {model} failed: no baseline")
        tiers[model] = _tier(mine, sample)
    return SetBaseline(sha256=questions.sha256, items=len(questions.items), max_tokens=run.max_tokens, tiers=tiers)


def _tier(outcomes: list[Outcome], sample: set[str]) -> BaselineTier:
    return BaselineTier(
        overall=_share(score(outcomes)),
        families={name: _share(part) for name, part in scores(outcomes, lambda o: o.item.family).items()},
        right="".join("1" if outcome.right else "0" for outcome in outcomes),
        replies={o.item.id: o.reply.text for o in outcomes if o.item.id in sample},
    )


def _share(part: Score) -> float:
    return round(part.share, 4)
