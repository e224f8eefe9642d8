"""The open questions are 200 different ones; a good answer passes and babble does not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from load_tests.quality.open_questions.checks import Checks
from load_tests.quality.open_questions.match import mentions, without, words
from load_tests.quality.open_questions.prose import FUNCTION_WORDS, is_prose, loops
from load_tests.quality.open_questions.question import OpenQuestion, read_open_questions
from load_tests.quality.options import OPEN_QUESTIONS
from load_tests.quality.sets import OPEN_MAX_TOKENS

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = read_open_questions(ROOT / OPEN_QUESTIONS).items
LONGEST = OPEN_MAX_TOKENS * 3 // 4  # words that fit into an answer

# What an answer may be looked for: the worst that babble can be made of.
WANTED = sorted(
    {
        phrase.rstrip("*")
        for one in QUESTIONS
        for group in (*one.checks.mentions, one.checks.names.of if one.checks.names else ())
        for phrase in group
    }
)
COMMON = sorted(FUNCTION_WORDS)
SAID = [word for one in QUESTIONS for word in one.example.split()]


def salad(random: Random, source: list[str], length: int) -> str:
    """Words of ``source`` in any order, in sentences of eight."""
    drawn = [random.choice(source) for _ in range(length)]
    return " ".join(" ".join(drawn[start : start + 8]).capitalize() + "." for start in range(0, length, 8))


def babble(kind: str, one: OpenQuestion, random: Random) -> str:
    """An answer that has not understood the question."""
    match kind:
        case "nothing":
            return random.choice(["", " \n", "...", "Yes.", "No."])
        case "echo":
            return f"{one.question} {one.question}"
        case "echo in another order":
            asked = one.question.split()
            return " ".join(random.sample(asked, len(asked))) + "."
        case "refusal":
            return "I'm sorry, but as an AI language model I cannot help you with that request. Please ask me another."
        case "ignorance":
            return "I do not know the answer to this question."
        case "phrases":
            return (
                "That is a very good question. There are many ways to think about it, and people have different "
                "opinions. It depends on what you want, and you can find more information about it in many places."
            )
        case "numbers":
            return " ".join(map(str, range(1, LONGEST)))
        case "a loop":
            return "the answer is that " * (LONGEST // 4)
        case "function words":
            return salad(random, COMMON, 40)
        case "words of all answers":
            return salad(random, SAID, LONGEST)
        case "words that are looked for":
            return salad(random, WANTED, 32)
        case "words that are looked for among function words":
            return salad(random, random.choices(WANTED, k=60) + random.choices(COMMON, k=40), 64)
        case "the answer to another question":
            return random.choice([other for other in QUESTIONS if other is not one]).example
    raise ValueError(kind)


KINDS = (
    "nothing",
    "echo",
    "echo in another order",
    "refusal",
    "ignorance",
    "phrases",
    "numbers",
    "a loop",
    "function words",
    "words of all answers",
    "words that are looked for",
    "words that are looked for among function words",
    "the answer to another question",
)


def test_there_are_200_different_questions_of_twelve_topics() -> None:
    topics = Counter(one.topic for one in QUESTIONS)

    assert len({" ".join(words(one.question)) for one in QUESTIONS}) == 200
    assert len({one.id for one in QUESTIONS}) == 200
    assert len(topics) == 12
    assert min(topics.values()) >= 14


def test_a_good_answer_passes() -> None:
    assert {one.id: one.failed(one.example) for one in QUESTIONS if not one.accepts(one.example)} == {}


def test_a_good_answer_passes_after_the_question() -> None:
    assert [one.id for one in QUESTIONS if not one.accepts(f"{one.question}\n{one.example}")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_babble_does_not_pass(kind: str) -> None:
    random = Random(kind)
    passed = [one.id for one in QUESTIONS for _ in range(2) if one.accepts(babble(kind, one, random))]

    assert len(passed) <= 0.03 * 2 * len(QUESTIONS), passed


def test_every_question_fails_a_sure_sign_of_babble() -> None:
    """The fixed kinds, none of which may pass even once."""
    fixed = ("nothing", "echo", "refusal", "ignorance", "phrases", "numbers", "a loop")

    assert [(kind, one.id) for kind in fixed for one in QUESTIONS if one.accepts(babble(kind, one, Random(0)))] == []


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("It is Paris.", "paris", True),
        ("Comparison", "paris", False),
        ("Washing-up", "wash*", True),
        ("He won't swash.", "wash*", False),
        ("South-America!", "south america", True),
        ("South of America", "south america", False),
        ("Apple, fig and pear", "apple fig and pear", True),
        ("I don’t", "don't", True),
    ],
)
def test_phrases_are_found_as_words(text: str, phrase: str, found: bool) -> None:
    assert mentions(text, phrase) == found


def test_copies_of_the_question_are_taken_out_of_an_answer() -> None:
    assert without("What is it?  WHAT IS IT? What is it about", "What is it?").split() == ["about"]


@pytest.mark.parametrize(
    "text",
    [
        "A library is a place where people can read and borrow books.",
        "The sky is blue because the air scatters the light of the sun. Every other colour goes on.",
        "Hi Tom,\n\nI gave her the book on Monday at 5 p.m. and it took a while. A very good one!\n\nYours, Ann",
        "1. **Pack** your bag.\n2. Lock the door, and give the key to a neighbour.\n3. Vitamin A is in the",
    ],
)
def test_prose_is_seen(text: str) -> None:
    assert is_prose(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It rains.",
        "There is no stop in this line of words",
        "Apples bananas oranges plums pears. Carrots potatoes beans peas onions.",
        "It is that which he or she and they with us were.",
        "We like the of and house. They were in my with garden.",
        "The dog ran to the. A cat was in the house.",
        "It is the dog and the dog and the dog and the dog and the dog and the dog.",
    ],
)
def test_babble_is_no_prose(text: str) -> None:
    assert not is_prose(text)


def test_a_loop_is_seen_after_a_good_beginning() -> None:
    start = "The sun is a star, and its light takes eight minutes to reach us here on our planet. "

    assert not loops(start)
    assert loops(start + "It is hot. " * 20)


@pytest.mark.parametrize(
    ("checks", "answer", "failed"),
    [
        ({"mentions": [["a cat", "dog"], ["red"]]}, "A red dog", []),
        ({"mentions": [["a cat", "dog"], ["red"]]}, "A dog", ["mentions"]),
        ({"names": {"at_least": 2, "of": ["one", "two", "three"]}}, "three, two", []),
        ({"names": {"at_least": 2, "of": ["one", "two", "three"]}}, "three three", ["names"]),
        ({"lacks": ["write"]}, "Write!", ["lacks"]),
        ({"min_words": 3}, "well-known, isn't it", []),
        ({"min_words": 3}, "two words", ["min_words"]),
        ({"max_words": 2}, "one two three", ["max_words"]),
        ({"min_sentences": 2}, "One. Two.", []),
        ({"min_sentences": 2}, "One, two.", ["min_sentences"]),
        ({"max_sentences": 1}, "One. Two.", ["max_sentences"]),
        ({"prose_from": 6}, "red green blue white black", []),
        ({"prose_from": 5}, "red green blue white black", ["prose"]),
        ({}, "", ["min_words", "min_sentences"]),
        ({}, "la " * 20, ["loop"]),
    ],
)
def test_each_check_is_named_where_it_fails(checks: dict[str, Any], answer: str, failed: list[str]) -> None:
    assert list(Checks.model_validate(checks).failed(answer)) == failed


@pytest.mark.parametrize(
    "change",
    [{"checks": {"maximum": 3}}, {"checks": {"max_words": 0}}, {"topic": ""}, {"level": 2}, {"example": None}],
)
def test_a_line_that_is_no_question_is_refused_with_its_number(change: dict[str, Any], tmp_path: Path) -> None:
    row = json.loads(QUESTIONS[0].model_dump_json())
    path = tmp_path / "open.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"id": "other"} | change) + "\n")

    with pytest.raises(ValueError, match=r"open\.jsonl:2 is no item"):
        read_open_questions(path)
