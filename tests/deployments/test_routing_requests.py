"""The requests that the forecaster is fitted to and judged by: never the same, with other names and other words."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from deployments.models.training.curriculum import draw_tasks, words
from deployments.models.training.curriculum.task import FAMILIES, Task
from deployments.models.training.curriculum.task import ask as question
from deployments.models.training.routing.answers import key
from deployments.models.training.routing.everyday_questions import NOUNS, everyday_questions
from deployments.models.training.routing.open_prompts import OPEN
from deployments.models.training.routing.other_values import FITTED_VALUES, JUDGED_VALUES, with_other_values
from deployments.models.training.routing.requests import (
    INSTRUCTIONS,
    QUESTIONS,
    REQUEST_COUNT,
    REQUESTS_BY_INTENT,
    draw_requests,
)
from deployments.models.training.routing.reworded import FITTED, JUDGED, Wordings, reworded
from load_tests.quality.item import read_held_out
from load_tests.quality.open_questions.question import read_open_questions
from load_tests.quality.options import HELD_OUT, OPEN_QUESTIONS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many questions, instructions and requests as are drawn, in files like the public ones."""
    folder = tmp_path_factory.mktemp("data")
    files = {
        **{
            name: [{"text_a": f"Why is the sea number {n} blue?"} for n in range(count)]
            for name, count in QUESTIONS.items()
        },
        **{
            name: [{"instruction": f"Write about {n} ships"} for n in range(count)]
            for name, count in INSTRUCTIONS.items()
        },
        REQUESTS_BY_INTENT: [
            *({"intent": "recipe", "text": f"what can i cook with {n} eggs"} for n in range(REQUEST_COUNT)),
            {"intent": "goodbye", "text": "see you around"},
            {"intent": "calculator", "text": "what is two plus two"},
        ],
    }
    for name, rows in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with gzip.open(folder / name, "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


class TestTheRequests:
    def test_what_is_judged_by_is_not_fitted_to(self, data: Path) -> None:
        requests = draw_requests(400, 90, 200, data, seed=3)

        fitted = {key(task) for task in requests.fitted}
        assert len(fitted) > 300
        for judged in requests.judged.values():
            assert len(judged) > 5
            assert not fitted & {key(task) for task in judged}
            assert {task.family for task in judged} <= set(FAMILIES)

    def test_small_talk_is_not_open(self, data: Path) -> None:
        requests = draw_requests(10, 10, 10, data, seed=3)

        assert [task.turns[-1].content.lower().rstrip("!.") for task in requests.small_talk] == ["see you around"]
        assert not [task for task in requests.opened if "two plus two" in task.turns[-1].content.lower()]
        assert len(requests.opened) > 10_000

    def test_they_are_the_same_for_a_seed(self, data: Path) -> None:
        one, other, third = (draw_requests(50, 30, 30, data, seed) for seed in (1, 1, 2))
        assert one == other != third

    def test_no_single_question_is_in_the_held_out_set(self, data: Path) -> None:
        held_out = {item.messages[0].content for item in read_held_out(HELD_OUT).items if len(item.messages) == 1}
        requests = draw_requests(2000, 900, 2000, data, 0)

        asked = [*requests.fitted, *(task for part in requests.judged.values() for task in part)]
        assert not [task for task in asked if len(task.turns) == 1 and task.turns[0].content in held_out]


class TestOtherNames:
    def test_names_change_in_the_question_and_in_the_answer(self) -> None:
        text = "The home of Ada is Rome. Ada can be reached at ada.adams@home.org. In which city does Ada live?"
        task = Task("extraction", 1, question(text), "Rome")

        (other,) = with_other_values([task], JUDGED_VALUES, 0)

        assert other.answer in JUDGED_VALUES[words.CITIES]
        assert f"is {other.answer}." in other.turns[0].content
        assert not re.search(r"\bada\b|rome", other.turns[0].content, re.IGNORECASE)

    @pytest.mark.parametrize(
        ("family", "text"),
        [
            ("extraction", "Sort by letter: Ada, Bruno"),
            ("transformation", "Reverse: Ada"),
            ("extraction", "Which one?"),
        ],
    )
    def test_what_depends_on_spelling_and_what_has_no_names_is_left_out(self, family: str, text: str) -> None:
        assert with_other_values([Task(family, 1, question(text), "7")], FITTED_VALUES, 0) == []

    def test_no_name_is_fitted_to_and_judged_by_or_in_the_curriculum(self) -> None:
        fitted, judged = (
            {word for new in values.values() for word in new} for values in (FITTED_VALUES, JUDGED_VALUES)
        )
        taught = {word for old in FITTED_VALUES for word in old}
        assert not fitted & judged
        assert not (fitted | judged) & taught


class TestOtherWords:
    @pytest.mark.parametrize("wordings", [FITTED, JUDGED])
    def test_the_question_changes_and_the_right_answer_does_not(self, wordings: Wordings) -> None:
        tasks = [task for task in draw_tasks(300, "words") if task.family in FAMILIES]

        others = reworded(tasks, wordings, 0)

        for task, other in zip(tasks, others, strict=True):
            assert other.turns[:-1] == task.turns[:-1]
            assert other.turns[-1].content != task.turns[-1].content
            assert (other.answer, other.family) == (task.answer, task.family)
        assert reworded(tasks, wordings, 0) == others != reworded(tasks, wordings, 1)

    def test_drills_are_left_out(self) -> None:
        tasks = list(draw_tasks(300, "words"))

        assert {task.family for task in reworded(tasks, FITTED, 0)} == set(FAMILIES)

    def test_no_wording_is_fitted_to_and_judged_by(self) -> None:
        assert not phrases(FITTED) & phrases(JUDGED)

    @pytest.mark.parametrize("wordings", [FITTED, JUDGED])
    def test_no_wording_is_in_the_held_out_set(self, wordings: Wordings) -> None:
        asked = "\n".join(item.messages[-1].content.lower() for item in read_held_out(HELD_OUT).items)

        assert not [phrase for phrase in phrases(wordings) if re.search(rf"\b{re.escape(phrase)}\b", asked)]


def phrases(wordings: Wordings) -> set[str]:
    instead = [phrase for others in wordings.instead.values() for phrase in others]
    every = [*wordings.before, *wordings.behind, *wordings.behind_greeting, *instead]
    return {phrase.strip(" .,:!?").lower() for phrase in every}


class TestEverydayQuestions:
    def test_they_are_different_the_same_for_a_seed_and_open(self) -> None:
        one, other = everyday_questions(300, 1), everyday_questions(300, 1)

        assert one == other != everyday_questions(300, 2)
        assert len({task.turns[-1].content for task in one}) == 300
        assert {task.family for task in one} == {OPEN}

    def test_they_are_about_nothing_that_auto_is_judged_by(self) -> None:
        asked = " ".join(item.messages[-1].content.lower() for item in read_open_questions(OPEN_QUESTIONS).items)

        assert not set(NOUNS.split()) & set(re.findall(r"[a-z]+", asked))

    def test_more_than_there_are_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="there are"):
            everyday_questions(1_000_000, 1)
