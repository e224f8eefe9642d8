"""Open questions for the forecaster: which are drawn, and what counts as an answer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.routing.open_prompts import OPEN, accepts, read_open_prompts

SKY = Task(OPEN, 1, (Turn("user", "Why is the sky blue in the morning?"),), "")


def write(path: Path, texts: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"text_a": text, "text_b": "", "label": 0}) + "\n" for text in texts)
    return path


def test_questions_are_drawn_alike_and_only_once(tmp_path: Path) -> None:
    texts = [f"What is the best book number {number}?" for number in range(40)]
    path = write(tmp_path / "pairs.gz", [*texts, *texts, "Too short?", "This is no question at all."])

    drawn = read_open_prompts(path, 40, seed=1)

    assert sorted(task.turns[0].content for task in drawn) == sorted(texts)
    assert drawn[:10] == read_open_prompts(path, 40, seed=1)[:10]
    assert drawn != read_open_prompts(path, 40, seed=2)
    with pytest.raises(ValueError, match="40 usable questions, not 41"):
        read_open_prompts(path, 41, seed=1)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("The sky looks blue because the air scatters short waves of light more than long ones.", True),
        (
            "Bread is made of flour, water and salt, and it rises because of the yeast in it.",
            False,
        ),  # of something else
        ("Why is the sky blue in the morning?", False),  # the question itself
        ("sky blue morning sky", False),
        ("42", False),
        ("", False),
        ("The the of sky the a of the of blue the of the a of.", False),
    ],
)
def test_an_answer_is_prose_about_the_question(reply: str, right: bool) -> None:
    assert accepts(SKY, reply) is right


def test_a_task_is_still_judged_by_its_exact_answer() -> None:
    task = Task("arithmetic", 1, (Turn("user", "What is 2 + 3?"),), "5")

    assert accepts(task, "Answer: 5")
    assert not accepts(task, "It is five, which is two plus three.")
