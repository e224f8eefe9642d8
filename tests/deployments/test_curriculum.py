"""The curriculum: answers are right, training never sees what is held out, and all of it is reproducible."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from deployments.models.training import heldout
from deployments.models.training.curriculum import MAKERS, draw_recall, draw_tasks
from deployments.models.training.curriculum.draw import Draw, is_held_out
from deployments.models.training.curriculum.task import FAMILIES, LEVELS, Task, is_right
from deployments.models.training.curriculum.words import CITIES, NAMES
from load_tests.quality.item import Item, read_held_out

SAMPLE = 6000


@pytest.fixture(name="trained", scope="module")
def _trained() -> list[Task]:
    return list(draw_tasks(SAMPLE, "a test"))


@pytest.fixture(name="items", scope="module")
def _items() -> list[Item]:
    return list(read_held_out(heldout.PATH).items)


def test_the_held_out_file_is_what_the_curriculum_makes(items: list[Item]) -> None:
    assert items == heldout.make()


def test_the_held_out_set_has_as_many_of_every_family_and_level(items: list[Item]) -> None:
    counted = Counter((item.family, item.level) for item in items)

    assert set(counted) == {(family, level) for family in FAMILIES for level in LEVELS}
    assert set(counted.values()) == {heldout.PER_CELL}
    assert len({item.messages for item in items}) == len(items)


def test_training_never_asks_a_held_out_question(trained: list[Task], items: list[Item]) -> None:
    kept = {tuple((message.role, message.content) for message in item.messages) for item in items}

    assert not [task for task in trained if tuple((turn.role, turn.content) for turn in task.turns) in kept]


@pytest.mark.parametrize("words", [NAMES, CITIES])
def test_held_out_values_stay_out_of_training(words: tuple[str, ...], trained: list[Task]) -> None:
    # Lists to sort or reverse mix all cities on purpose: there the order is held out, not the words.
    said = [t for t in trained if t.family in ("extraction", "tables")]
    text = " ".join(turn.content for task in said for turn in task.turns)
    kept = {word for word in words if is_held_out(word)}

    assert kept
    assert not kept & set(re.findall(r"\w+", text))


def test_a_text_that_is_asked_about_often_holds_every_answer_and_nothing_held_out() -> None:
    kept = {word for words in (NAMES, CITIES) for word in words if is_held_out(word)}
    for talk in draw_recall(500, "a test"):
        assert [turn.role for turn in talk] == ["user", "assistant"] * (len(talk) // 2)
        assert len(talk) // 2 in (1, *range(4, 9))
        for answer in talk[1::2]:
            told = re.split(r"\n|; |\. ", answer.content)
            assert all(part in talk[0].content for part in told)
        assert not kept & set(re.findall(r"\w+", talk[0].content))


def test_a_question_about_a_text_has_one_answer() -> None:
    for turns in draw_recall(3000, "one answer"):
        asked: dict[str, set[str]] = {}
        for question, answer in zip(turns[0::2], turns[1::2], strict=True):
            asked.setdefault(question.content, set()).add(answer.content)
        assert all(len(answers) == 1 for answers in asked.values())


EQUATION = re.compile(r"(\d+) ([+-]) (\d+) = (\d+)")


def operands(text: str) -> set[tuple[str, tuple[int, ...]]]:
    """Sums and differences that are worked out in ``text``, whichever number comes first."""
    return {(sign, tuple(sorted((int(a), int(b))))) for a, sign, b, _ in EQUATION.findall(text)}


def test_sums_that_are_asked_in_evaluation_are_nowhere_worked_out_in_training(
    trained: list[Task], items: list[Item]
) -> None:
    kept: set[tuple[str, tuple[int, ...]]] = set()
    for item in items:
        if found := re.fullmatch(r"\D*(\d+) ([+-]) (\d+)\D*", item.messages[-1].content):
            a, sign, b = found.groups()
            kept.add((sign, tuple(sorted((int(a), int(b))))))
    assert len(kept) > 40

    for task in trained:
        single = re.fullmatch(r"\D*(\d+) ([+-]) (\d+)\D*", task.turns[-1].content)
        asked = f"{single[1]} {single[2]} {single[3]} = 0" if single else ""
        assert not kept & operands(f"{task.reply}\n{asked}")


def test_phrasings_that_are_held_out_are_not_said_in_training_in_other_letters() -> None:
    templates = ("Show it.", "Say which {x} is it.", "Which {x}?", "say the {x}?")
    draw = Draw("phrases")

    said = {draw.phrase(templates) for _ in range(3000)}

    assert len(said) > 8
    assert not {text for text in said if text.casefold().endswith(("which {x}?", "say the {x}?"))}


@pytest.mark.parametrize("held_out", [False, True])
def test_the_reply_to_learn_counts_as_right(held_out: bool) -> None:
    for task in draw_tasks(SAMPLE, "replies", held_out=held_out):
        assert is_right(task.reply, task.answer), task


def test_the_same_seed_draws_the_same_tasks() -> None:
    assert list(draw_tasks(200, 7)) == list(draw_tasks(200, 7))
    assert list(draw_tasks(200, 7)) != list(draw_tasks(200, 8))


def test_arithmetic_is_right() -> None:
    checked = 0
    draw = Draw("sums")
    for level in LEVELS:
        for maker in MAKERS["arithmetic", level] * 100:
            task = maker(draw)
            found = re.search(r"\d+(?: [-+*] \d+)+", task.turns[0].content)
            if found:
                assert eval(found.group(), {"__builtins__": {}}) == int(task.answer), task
                checked += 1
    assert checked > 300


def test_the_working_of_a_word_problem_is_right() -> None:
    draw = Draw("stories")
    for level in LEVELS:
        for maker in MAKERS["word problems", level] * 100:
            task = maker(draw)
            for line in task.working.split("\n"):
                sum_, _, result = line.partition(" = ")
                assert eval(sum_, {"__builtins__": {}}) == int(result) >= 0, task
            assert task.working.endswith(f" = {task.answer}")


def test_answers_that_look_like_json_are_json(trained: list[Task]) -> None:
    asked = [task for task in trained if "JSON" in task.turns[-1].content and task.family == "extraction"]

    assert len(asked) > 100
    for task in asked:
        for value in json.loads(task.answer).values():
            assert value in task.turns[-1].content


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("42", True),
        (" 42\n", True),
        ("40 + 2 = 42\nAnswer: 42", True),
        ("Answer: 41\nAnswer: 42", True),
        ("Answer: 42\nand more", True),
        ("42 apples", False),
        ("40 + 2 = 42\nAnswer: 41", False),
        ("Answer:", False),
        ("", False),
    ],
)
def test_a_reply_counts_by_exact_match(reply: str, right: bool) -> None:
    assert is_right(reply, "42") == right
