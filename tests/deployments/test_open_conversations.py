"""``auto`` with the shipped forecaster: what was said before an open question does not send it to a tier for tasks."""

from __future__ import annotations

import pytest

from deployments.models.training.curriculum import draw_tasks
from tests.deployments.questions import FOLLOW_UPS, OPEN
from tests.deployments.shipped_forecaster import tier_of

ANSWER = "Here is an answer of some length, with a few words in it."


@pytest.mark.parametrize(
    "before",
    [
        ("hi", "Hello! How can I help you?"),
        ("What is 12 + 9?", "21"),
        ("Remember the code ABX-42.", "OK."),
        ("Why is the sea salty?", "Rivers carry dissolved minerals from rocks into the sea."),
    ],
)
def test_most_open_questions_are_open_whatever_was_said_before(before: tuple[str, str]) -> None:
    astray = [question for question in OPEN if tier_of(*before, question) != "general"]
    assert len(astray) <= 0.1 * len(OPEN)


@pytest.mark.parametrize("short", FOLLOW_UPS)
def test_what_follows_an_open_question_goes_where_it_went(short: str) -> None:
    astray = [question for question in OPEN if tier_of(question, ANSWER, short) != "general"]
    assert len(astray) <= 0.1 * len(OPEN)


@pytest.mark.parametrize("question", OPEN[1:4])
def test_a_task_after_an_open_question_stays_with_its_tiers(question: str) -> None:
    tasks = [[turn.content for turn in task.turns] for task in draw_tasks(800, "open conversations")]
    alone = [turns[0] for turns in tasks if len(turns) == 1]
    assert len(alone) > 600
    assert sum(tier_of(question, ANSWER, task) == "general" for task in alone) <= 0.02 * len(alone)


def test_tasks_about_what_was_said_before_stay_with_their_tiers() -> None:
    tasks = [
        task for task in draw_tasks(2000, "open conversations") if sum(turn.role == "user" for turn in task.turns) > 1
    ]
    assert len(tasks) > 100
    assert [task for task in tasks if tier_of(*(turn.content for turn in task.turns)) == "general"] == []
