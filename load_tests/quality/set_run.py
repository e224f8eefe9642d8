"""A set of questions, put to the models."""

from __future__ import annotations

from dataclasses import dataclass

from load_tests.quality.outcome import Outcome
from load_tests.quality.question import Question, QuestionSet


@dataclass(frozen=True, slots=True)
class SetRun:
    """What came back for one set: an outcome per model and question asked, model by model."""

    name: str  # of the set, one of options.SETS
    questions: QuestionSet[Question]  # all of the file, whether asked or not
    max_tokens: int  # of each answer
    outcomes: tuple[Outcome, ...]

    def by_model(self) -> dict[str, list[Outcome]]:
        """The outcomes of each model, in the order in which they were asked."""
        models: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            models.setdefault(outcome.model, []).append(outcome)
        return models
