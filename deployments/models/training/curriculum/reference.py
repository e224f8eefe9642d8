"""Later turns that lean on earlier ones: "and the second one?"."""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.curriculum.words import CITIES, COLOURS, DRINKS, NOUNS, PETS, SPORTS

FAMILY = "reference"

LIKES = {"drink": DRINKS, "colour": COLOURS, "sport": SPORTS, "pet": PETS}
FIRST_ASKED = ("What does {n} like?", "Which {k} does {n} like?", "Tell me what {n} likes.", "What {k} does {n} like?")
AND = (
    "And {n}?",
    "What about {n}?",
    "And what about {n}?",
    "And {n}, then?",
    "How about {n}, then?",
    "What about {n}, then?",
    "{n}, too?",
    "How about {n}?",
    "{n}?",
)
ORDINALS = ("first", "second", "third", "fourth", "fifth")
GIVEN = (
    "Here is a list: {x}.",
    "Remember these: {x}.",
    "I have {x}.",
    "The list is {x}.",
    "We need {x}.",
    "Look at these: {x}.",
    "Take this list: {x}.",
    "Look: {x}.",
    "Take {x}.",
    "Look at this list: {x}.",
)
WHICH = (
    "Which one is {o}?",
    "What is the {o} one?",
    "Name the {o} one.",
    "Tell me which one is {o}.",
    "What is the {o}?",
    "Which is {o}?",
    "Name the {o}.",
    "Tell me the {o} one.",
    "Which is the {o} one?",
)
NEXT = (
    "And the {o} one?",
    "What about the {o} one?",
    "And the {o}?",
    "Now the {o} one.",
    "What is the {o} one?",
    "And which is the {o} one?",
    "The {o}, then?",
    "And what about the {o} one?",
    "And what is the {o} one?",
    "The {o} one?",
)
CODE = (
    "The code is {x}.",
    "Remember the code {x}.",
    "My code is {x}.",
    "Keep this code: {x}.",
    "Today the code is {x}.",
    "Note this code: {x}.",
    "The code is {x} today.",
    "Note the code {x}.",
    "The code today is {x}.",
)
CODE_ASKED = (
    "What was the code?",
    "What is the code?",
    "Tell me the code.",
    "Which code did I give you?",
    "Say the code.",
    "Repeat the code again.",
    "Tell me the code again.",
    "Which code was it?",
    "Repeat the code.",
    "Say the code again.",
)
BETWEEN = (
    ("Thanks.", "You are welcome!"),
    ("Who are you?", "I am Manta, a small language model."),
    ("Hello!", "Hello! How can I help you?"),
    ("What is 2 + 3?", "5"),
    ("Say only: river", "river"),
    ("Are you a human?", "No, I am a language model."),
)
LAST_BUT = {"last": -1, "one before the last": -2}


def said(*lines: str) -> tuple[Turn, ...]:
    """User and assistant in turn."""
    return tuple(Turn("user" if place % 2 == 0 else "assistant", line) for place, line in enumerate(lines))


def likes(draw: Draw, level: int, count: int, follow_ups: int) -> Task:
    """Who likes what; then the same about another."""
    kind = draw.choice(list(LIKES))
    known = list(zip(draw.names(count), draw.mix(LIKES[kind], count), strict=True))
    text = (
        ", ".join(f"{name} likes {thing}" for name, thing in known[:-1]) + f" and {known[-1][0]} likes {known[-1][1]}."
    )
    order = draw.sample(known, follow_ups + 1)
    lines = [f"{text} {draw.phrase(FIRST_ASKED, 1).format(n=order[0][0], k=kind)}", order[0][1]]
    for name, thing in order[1:]:
        lines += [draw.phrase(AND).format(n=name), thing]
    return Task(FAMILY, level, said(*lines[:-1]), lines[-1])


def places(draw: Draw, level: int, low: int, high: int) -> Task:
    """An item of a list by its place, then another."""
    pool = draw.choice((NOUNS, CITIES, PETS))
    words = draw.mix(pool, draw.randint(low, high))
    text = draw.phrase(GIVEN).format(x=", ".join(words[:-1]) + " and " + words[-1])
    one, other = draw.sample(range(len(words)), 2)
    asked, again = draw.phrase(WHICH).format(o=ORDINALS[one]), draw.phrase(NEXT).format(o=ORDINALS[other])
    return Task(FAMILY, level, said(f"{text} {asked}", words[one], again), words[other])


def places_from_the_end(draw: Draw) -> Task:
    """An item by its place, then one counted from the end."""
    words = draw.mix(draw.choice((NOUNS, CITIES)), draw.randint(4, 5))
    text = draw.phrase(GIVEN).format(x=", ".join(words[:-1]) + " and " + words[-1])
    one = draw.randrange(len(words) - 2)
    place = draw.choice(list(LAST_BUT))
    asked, again = draw.phrase(WHICH).format(o=ORDINALS[one]), draw.phrase(NEXT[:3] + NEXT[4:]).format(o=place)
    return Task(
        FAMILY,
        3,
        said(f"{text} {asked}", words[one], again.replace("one before the last one", "one before the last")),
        words[LAST_BUT[place]],
    )


def code(draw: Draw, level: int, turns: int) -> Task:
    """A number to remember over other talk."""
    number = draw.unseen(lambda: draw.randint(100, 9999))
    lines = [draw.phrase(CODE).format(x=number), "OK."]
    for question, answer in draw.sample(BETWEEN, turns):
        lines += [question, answer]
    return Task(FAMILY, level, said(*lines, draw.phrase(CODE_ASKED)), str(number))


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (lambda draw: likes(draw, 1, 2, 1), lambda draw: code(draw, 1, 0)),
    2: (lambda draw: likes(draw, 2, 4, 2), lambda draw: places(draw, 2, 3, 3), lambda draw: code(draw, 2, 1)),
    3: (lambda draw: places(draw, 3, 4, 5), places_from_the_end, lambda draw: code(draw, 3, 3)),
}
