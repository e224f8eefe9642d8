"""Following a format to the letter."""

from __future__ import annotations

import json
from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, Turn, ask
from deployments.models.training.curriculum.words import COLOURS, NOUNS, PETS

FAMILY = "format"

ONLY = (
    "Reply with the word {w} and nothing else.",
    "Say only: {w}",
    "Answer with exactly one word: {w}",
    "Write just {w}.",
    "Your whole answer must be: {w}",
    "Print {w} and nothing more.",
    "Repeat: {w}",
    "Reply with {w} and nothing more.",
    "Say just {w}.",
    "Say only the word {w}.",
    "Reply only with the word {w}.",
    "Reply only with {w}.",
    "Say {w} and nothing else.",
)
WRAPPED = {
    "quotes": '"{w}"',
    "square brackets": "[{w}]",
    "round brackets": "({w})",
    "stars": "*{w}*",
    "curly brackets": "{{{w}}}",
    "angle brackets": "<{w}>",
}
WRAP = (
    "Put the word {w} in {k}.",
    "Write {w} in {k}.",
    "Answer with {w} in {k}.",
    "Set {w} in {k}.",
    "Give me {w} in {k}.",
    "Print the word {w} in {k}.",
    "Show me {w} in {k}.",
    "Say {w} in {k}.",
    "Print {w} in {k}.",
    "Show {w} in {k}.",
)
TIMES = (
    "Write {w} {k} times, separated by commas.",
    "Repeat {w} {k} times with commas.",
    "Say {w} {k} times, with commas.",
    "Give me {w} {k} times, comma-separated.",
    "Print {w} {k} times, comma-separated.",
    "Show {w} {k} times, separated by commas.",
    "Write {w} {k} times with commas.",
    "Print {w} {k} times with commas.",
    "Show {w} {k} times, with commas.",
)
BULLETS = (
    "Write as a bullet list: {x}",
    "Make a bullet list of {x}",
    "Turn into bullet points: {x}",
    "Bullet list, please: {x}",
    "List with bullets: {x}",
    "Put these into bullet points: {x}",
    "Show as a list with bullets: {x}",
    "Show these as a bullet list: {x}",
    "Put into a bullet list: {x}",
    "Show as bullet points: {x}",
)
NUMBERED = (
    "Write as a numbered list: {x}",
    "Make a numbered list of {x}",
    "Turn into a numbered list: {x}",
    "Number these: {x}",
    "List with numbers: {x}",
    "Put these into a list with numbers: {x}",
    "Show these as a list with numbers: {x}",
    "Put these in a numbered list: {x}",
    "Put into a numbered list: {x}",
    "Show as a numbered list: {x}",
)
JSON_LIST = (
    "Write as a JSON list: {x}",
    "Make a JSON array of {x}",
    "Turn into a JSON list: {x}",
    "JSON array, please: {x}",
    "Return a JSON list: {x}",
    "Put these into a JSON array: {x}",
    "Show these as a JSON list: {x}",
    "Show as a JSON list: {x}",
    "Put into a JSON list: {x}",
    "Show as a JSON array: {x}",
)
OBJECT = (
    "Write as a JSON object: {x}",
    "Make a JSON object of {x}",
    "Turn into a JSON object: {x}",
    "JSON object, please: {x}",
    "Return a JSON object: {x}",
    "Put these into a JSON object: {x}",
    "Show these as a JSON object: {x}",
    "Show me a JSON object of {x}",
    "Put into a JSON object: {x}",
    "Show as a JSON object: {x}",
)
CAPITALS = (
    "Write as a {k} list in capital letters: {x}",
    "Make a {k} list, all upper case: {x}",
    "{k} list, in capitals: {x}",
    "Turn into a {k} list in upper case: {x}",
    "Give me a {k} list in capital letters: {x}",
    "As a {k} list, all in capitals: {x}",
    "In capitals, as a {k} list: {x}",
    "Give me a {k} list in capitals: {x}",
    "As a {k} list and in capitals: {x}",
)
FIRST = (
    "Write the first {n} as a {k} list: {x}",
    "Make a {k} list of the first {n}: {x}",
    "{k} list, only the first {n}: {x}",
    "Turn the first {n} into a {k} list: {x}",
    "As a {k} list, the first {n}: {x}",
    "Give me the first {n} as a {k} list: {x}",
    "Only the first {n}, {k} list: {x}",
    "Only the first {n}, as a {k} list: {x}",
    "First {n} as a {k} list: {x}",
)
NUMERALS = {2: "two", 3: "three", 4: "four", 5: "five"}
SYSTEM = {
    "Answer in capital letters.": str.upper,
    "Always put your answer in quotes.": lambda said: f'"{said}"',
    "Always end your answer with an exclamation mark.": lambda said: f"{said}!",
    "Put your answer in square brackets.": lambda said: f"[{said}]",
}


def bullet(words: list[str]) -> str:
    """``- a`` on lines of their own."""
    return "\n".join(f"- {word}" for word in words)


def numbered(words: list[str]) -> str:
    """``1. a`` on lines of their own."""
    return "\n".join(f"{place}. {word}" for place, word in enumerate(words, 1))


LISTS: dict[str, Callable[[list[str]], str]] = {"bullet": bullet, "numbered": numbered, "JSON": json.dumps}


def only(draw: Draw) -> Task:
    """One word and nothing else."""
    word = draw.choice((draw.name(), draw.mix(NOUNS, 1)[0]))
    return Task(FAMILY, 1, ask(draw.phrase(ONLY).format(w=word)), word)


def wrapped(draw: Draw) -> Task:
    """A word in quotes or brackets."""
    word, kind = draw.unseen(lambda: (draw.choice(NOUNS), draw.choice(list(WRAPPED))))
    return Task(FAMILY, 1, ask(draw.phrase(WRAP).format(w=word, k=kind)), WRAPPED[kind].format(w=word))


def times(draw: Draw) -> Task:
    """A word several times."""
    word, number = draw.unseen(lambda: (draw.choice(NOUNS), draw.choice(list(NUMERALS))))
    return Task(FAMILY, 2, ask(draw.phrase(TIMES).format(w=word, k=NUMERALS[number])), ", ".join([word] * number))


def as_list(draw: Draw) -> Task:
    """Two to four words as a list."""
    words = draw.mix(NOUNS, draw.randint(2, 4))
    templates, make = draw.choice(((BULLETS, bullet), (NUMBERED, numbered), (JSON_LIST, json.dumps)))
    return Task(FAMILY, 2, ask(draw.phrase(templates).format(x=", ".join(words))), make(words))


def as_object(draw: Draw) -> Task:
    """Two or three pairs as a JSON object."""
    count = draw.randint(2, 3)
    pairs = dict(zip(draw.names(count), draw.mix((*COLOURS, *PETS), count), strict=True))
    listed = ", ".join(f"{name}: {value}" for name, value in pairs.items())
    return Task(FAMILY, 3, ask(draw.phrase(OBJECT).format(x=listed)), json.dumps(pairs))


def capitals(draw: Draw) -> Task:
    """A list in capital letters."""
    words, kind = draw.mix(NOUNS, draw.randint(2, 4)), draw.choice(list(LISTS))
    made = LISTS[kind]([word.upper() for word in words])
    return Task(FAMILY, 3, ask(draw.phrase(CAPITALS).format(k=kind, x=", ".join(words))), made)


def first(draw: Draw) -> Task:
    """A list of the first few words only."""
    words, kind = draw.mix(NOUNS, draw.randint(4, 6)), draw.choice(list(LISTS))
    number = draw.randint(2, 3)
    text = draw.phrase(FIRST).format(n=NUMERALS[number], k=kind, x=", ".join(words))
    return Task(FAMILY, 3, ask(text), LISTS[kind](words[:number]))


def by_system(draw: Draw) -> Task:
    """A format set by the system prompt."""
    rule = draw.choice(list(SYSTEM))
    name, colour = draw.name(), draw.choice(COLOURS)
    asked = draw.phrase(
        ("Which colour does {n} like?", "Which colour is it that {n} likes?", "Tell me the colour {n} likes."), 1
    )
    turns = (Turn("system", rule), Turn("user", f"{name} likes {colour}. {asked.format(n=name)}"))
    return Task(FAMILY, 3, turns, SYSTEM[rule](colour))


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (only, wrapped),
    2: (times, as_list, as_list),
    3: (as_object, capitals, first, by_system),
}
