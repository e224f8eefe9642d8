"""Case, order and number of words."""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, ask
from deployments.models.training.curriculum.words import NOUNS

FAMILY = "transformation"

UPPER = (
    "Write in capital letters: {x}",
    "Make this upper case: {x}",
    "Convert to upper case: {x}",
    "{x}\nIn capitals, please.",
    "Turn into capital letters: {x}",
    "Uppercase these words: {x}",
    "Change to upper case: {x}",
    "Put into upper case: {x}",
    "Show this in capitals: {x}",
    "Show in capital letters: {x}",
    "Put these words in capitals: {x}",
    "Put this in capital letters: {x}",
    "Show in upper case: {x}",
)
LOWER = (
    "Write in small letters: {x}",
    "Make this lower case: {x}",
    "Convert to lower case: {x}",
    "{x}\nIn lower case, please.",
    "Turn into small letters: {x}",
    "Lowercase these words: {x}",
    "Change to lower case: {x}",
    "Put into lower case: {x}",
    "Show this in small letters: {x}",
    "Show these words in lower case: {x}",
    "Put this in small letters: {x}",
    "Show in lower case: {x}",
)
REVERSE = (
    "Reverse the order of the words: {x}",
    "Write these words in reverse order: {x}",
    "Reverse this list: {x}",
    "{x}\nNow the other way round.",
    "Put the words in reverse order: {x}",
    "Say the words from last to first: {x}",
    "List the words backwards: {x}",
    "Give the words from last to first: {x}",
    "Give me this list in reverse order: {x}",
    "Reverse these words: {x}",
    "Reverse the words: {x}",
    "Give the words in reverse order: {x}",
)
COUNT = (
    "How many words are here: {x}",
    "Count the words: {x}",
    "{x}\nHow many words is that?",
    "Number of words: {x}",
    "How many words does this list have: {x}",
    "How many words do you see? {x}",
    "What is the number of words in: {x}",
    "Tell me the number of words: {x}",
    "Tell me how many words this is: {x}",
    "Count how many words these are: {x}",
    "Tell me how many words there are: {x}",
    "Count these words: {x}",
)
SORT = (
    "Sort alphabetically: {x}",
    "Put in alphabetical order: {x}",
    "Sort the words from A to Z: {x}",
    "{x}\nSort these alphabetically.",
    "Alphabetical order, please: {x}",
    "Arrange the words alphabetically: {x}",
    "Order the words from A to Z: {x}",
    "Sort these words alphabetically: {x}",
    "Write the words in alphabetical order: {x}",
    "Sort these words from A to Z: {x}",
    "Sort these words: {x}",
    "Write in alphabetical order: {x}",
)
ASCENDING = (
    "Sort the numbers: {x}",
    "Sort from smallest to largest: {x}",
    "Put the numbers in ascending order: {x}",
    "{x}\nSort these numbers, smallest first.",
    "Order the numbers from low to high: {x}",
    "Arrange from smallest to largest: {x}",
    "Sort these numbers from low to high: {x}",
    "Write these numbers from smallest to largest: {x}",
    "In ascending order: {x}",
    "Write the numbers in ascending order: {x}",
    "Sort these numbers: {x}",
)
DESCENDING = (
    "Sort from largest to smallest: {x}",
    "Put the numbers in descending order: {x}",
    "{x}\nSort these numbers, largest first.",
    "Order the numbers from high to low: {x}",
    "Arrange from largest to smallest: {x}",
    "Sort these numbers from largest to smallest: {x}",
    "Write the numbers from high to low: {x}",
    "In descending order: {x}",
    "Write the numbers in descending order: {x}",
    "Sort these numbers from high to low: {x}",
)
OCCURRENCES = (
    "How often does {w} occur: {x}",
    "Count how many times {w} appears: {x}",
    "{x}\nHow many times is {w} in the list?",
    "How many times does {w} appear in: {x}",
    "Number of times {w} occurs: {x}",
    "How often do you see {w} in this list: {x}",
    "Count how often {w} is in: {x}",
    "How often is {w} in: {x}",
    "How often is {w} in this list: {x}",
    "Count {w} in: {x}",
)
UPPER_REVERSE = (
    "Reverse the words and write them in capitals: {x}",
    "In reverse order and upper case: {x}",
    "Write in capital letters, last word first: {x}",
    "Reverse the list and make it upper case: {x}",
    "{x}\nReverse order and capital letters, please.",
    "Give these in upper case and in reverse order: {x}",
    "Reverse order and upper case: {x}",
    "In capitals and in reverse order: {x}",
    "Upper case and reverse order: {x}",
    "Give these in reverse order and in capitals: {x}",
)


def case(draw: Draw) -> Task:
    """One to three words in the other case."""
    words = " ".join(draw.mix(NOUNS, draw.randint(1, 3)))
    if draw.random() < 0.5:
        return Task(FAMILY, 1, ask(draw.phrase(UPPER).format(x=words)), words.upper())
    return Task(FAMILY, 1, ask(draw.phrase(LOWER).format(x=words.upper())), words)


def reverse(draw: Draw, level: int, low: int, high: int) -> Task:
    """Words from last to first."""
    words = draw.mix(NOUNS, draw.randint(low, high))
    return Task(FAMILY, level, ask(draw.phrase(REVERSE).format(x=" ".join(words))), " ".join(reversed(words)))


def count(draw: Draw, level: int, low: int, high: int) -> Task:
    """The number of words."""
    words = draw.mix(NOUNS, draw.randint(low, high))
    return Task(FAMILY, level, ask(draw.phrase(COUNT).format(x=" ".join(words))), str(len(words)))


def sort_words(draw: Draw, level: int, low: int, high: int) -> Task:
    """Words in alphabetical order."""
    words = draw.mix(NOUNS, draw.randint(low, high))
    return Task(FAMILY, level, ask(draw.phrase(SORT).format(x=" ".join(words))), " ".join(sorted(words)))


def sort_numbers(draw: Draw, level: int, low: int, high: int) -> Task:
    """Numbers below 100 in order."""
    numbers = draw.unseen(lambda: tuple(draw.sample(range(1, 100), draw.randint(low, high))))
    falling = draw.random() < 0.5
    listed = ", ".join(map(str, numbers))
    answer = ", ".join(map(str, sorted(numbers, reverse=falling)))
    return Task(FAMILY, level, ask(draw.phrase(DESCENDING if falling else ASCENDING).format(x=listed)), answer)


def occurrences(draw: Draw) -> Task:
    """How often one word is in a list of six to nine."""
    kinds = draw.mix(NOUNS, 3)
    words = draw.choices(kinds, k=draw.randint(6, 9))
    text = draw.phrase(OCCURRENCES).format(w=kinds[0], x=" ".join(words))
    return Task(FAMILY, 3, ask(text), str(words.count(kinds[0])))


def upper_reverse(draw: Draw) -> Task:
    """Two changes at once."""
    words = draw.mix(NOUNS, draw.randint(3, 4))
    answer = " ".join(reversed(words)).upper()
    return Task(FAMILY, 3, ask(draw.phrase(UPPER_REVERSE).format(x=" ".join(words))), answer)


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (case, lambda draw: reverse(draw, 1, 2, 3), lambda draw: count(draw, 1, 1, 5)),
    2: (
        lambda draw: reverse(draw, 2, 4, 5),
        lambda draw: count(draw, 2, 6, 9),
        lambda draw: sort_words(draw, 2, 2, 3),
        lambda draw: sort_numbers(draw, 2, 3, 3),
    ),
    3: (
        lambda draw: sort_words(draw, 3, 4, 5),
        lambda draw: sort_numbers(draw, 3, 4, 6),
        lambda draw: reverse(draw, 3, 6, 8),
        occurrences,
        upper_reverse,
    ),
}
