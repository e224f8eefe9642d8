"""The curriculum: answers are right, training never sees what is held out, and all of it is reproducible."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from deployments.models.training import heldout
from deployments.models.training.curriculum import MAKERS, draw_recall, draw_tasks
from deployments.models.training.curriculum.draw import Draw, is_held_out
from deployments.models.training.curriculum.task import FAMILIES, LEVELS, Task, Turn, is_right
from deployments.models.training.curriculum.words import CITIES, NAMES
from deployments.models.training.english import Conversation, read_english
from load_tests.quality.item import Item, read_held_out

SAMPLE = 6000


@pytest.fixture(name="trained", scope="module")
def _trained() -> list[Task]:
    return list(draw_tasks(SAMPLE, "a test"))


@pytest.fixture(name="items", scope="module")
def _items() -> list[Item]:
    return list(read_held_out(heldout.PATH).items)


@pytest.fixture(name="english", scope="module")
def _english() -> list[Conversation]:
    """What the embedded models have read."""
    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (data / "corpus").is_dir():
        pytest.skip("the English that the models were trained on lies beside the checkout of its developers only")
    return read_english(data)


def test_the_held_out_file_is_what_the_curriculum_makes(items: list[Item], english: list[Conversation]) -> None:
    assert items == heldout.make(english)


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


def as_task(item: Item) -> Task:
    """An item without the working of its answer."""
    turns = tuple(Turn(message.role, message.content) for message in item.messages)
    return Task(item.family, item.level, turns, item.answer)


@pytest.mark.parametrize(
    ("text", "sums"),
    [
        ("3 + 20 = 23\n23 - 4 = 19", {("+", 3, 20), ("-", 4, 23)}),
        ("12+3+4=19", {("+", 3, 12), ("+", 3, 4)}),
        ("4.5 + 3 = 7.5 and 1,200 + 300 = 1,500", set()),
        ("6 * 7 = 42", set()),
    ],
)
def test_sums_are_found_in_text(text: str, sums: set[heldout.Sum]) -> None:
    assert heldout.sums_in(text) == sums


def test_english_works_out_no_sum_that_is_asked_in_evaluation(items: list[Item], english: list[Conversation]) -> None:
    kept = {each for item in items if item.family in heldout.SUMS for each in heldout.asked(as_task(item))}
    worked = {each for turns in english for turn in turns for each in heldout.sums_in(turn.content)}

    assert len(kept) > 60
    assert len(worked) > 1000
    assert not kept & worked


def test_what_is_said_in_evaluation_is_not_said_in_training_in_other_letters_or_signs(items: list[Item]) -> None:
    def plain(text: str) -> str:
        return re.sub(r"[^\w\s]", "", text).casefold().strip()

    kept = {plain(item.messages[-1].content) for item in items if (item.family, item.level) == ("conversation", 1)}
    said = {plain(t.turns[-1].content) for t in draw_tasks(30_000, "small talk") if t.family == "conversation"}

    assert len(kept) > 15
    assert len(said) > 100
    assert not kept & said


def test_sums_that_are_asked_in_evaluation_are_nowhere_worked_out_in_training(
    trained: list[Task], items: list[Item]
) -> None:
    kept = {each for item in items if item.family in heldout.SUMS for each in heldout.asked(as_task(item))}
    assert len(kept) > 60

    for task in trained:
        asked = heldout.asked(task) if task.family in heldout.SUMS else set()
        assert not kept & (heldout.sums_in(task.reply) | asked), task


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
