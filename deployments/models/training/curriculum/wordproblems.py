"""Small stories that end in a number, solved with the working shown."""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, ask
from deployments.models.training.curriculum.words import COLOURS, ITEMS, PETS

FAMILY = "word problems"

MORE = (
    "{n} has {a} {i} and gets {b} more.",
    "{n} had {a} {i}. Then {n} found {b} more.",
    "There were {a} {i} on the table. {n} added {b} more.",
    "{n} bought {a} {i} in the morning and {b} in the evening.",
    "{n} has {a} {i}. A friend gives {n} another {b}.",
    "{n} collected {a} {i} on Monday and {b} on Tuesday.",
    "{n} owns {a} {i} and buys {b} more.",
    "{n} receives {a} {i} and then {b} more.",
    "{n} picked {a} {i} today and {b} yesterday.",
    "{n} owns {a} {i}. Then {n} receives {b}.",
    "{n} picked {a} {i} and found {b} more.",
    "{n} has {a} {i}, and later gets {b} more.",
    "{n} owns {a} {i} and receives {b} more.",
    "{n} picked {a} {i}, and later {b} more.",
)
LESS = (
    "{n} has {a} {i} and gives away {b}.",
    "{n} had {a} {i}. Then {n} lost {b}.",
    "There were {a} {i} on the table. {n} took {b} of them away.",
    "{n} bought {a} {i} and sold {b} of them.",
    "{n} has {a} {i}. {b} of them break.",
    "{n} collected {a} {i} and threw {b} away.",
    "{n} owns {a} {i} and loses {b}.",
    "{n} had {a} {i} and dropped {b}.",
    "{n} picked {a} {i} and ate {b} of them.",
    "{n} has {a} {i} and sells {b}.",
    "{n} picked {a} {i}. Then {n} dropped {b}.",
    "{n} bought {a} {i}, and later lost {b}.",
    "{n} owns {a} {i} and gives {b} away.",
    "From {a} {i}, {n} sells {b}.",
    "{n} owns {a} {i} and sells {b}.",
    "{n} picked {a} {i}, and later dropped {b}.",
)
GROUPS = (
    "{n} has {a} boxes with {b} {i} each.",
    "{n} buys {a} bags of {b} {i}.",
    "There are {a} shelves with {b} {i} on each.",
    "{n} fills {a} baskets with {b} {i} each.",
    "{n} gets {b} {i} every day for {a} days.",
    "{n} orders {a} boxes of {b} {i}.",
    "There are {a} crates of {b} {i}.",
    "{n} owns {a} bags with {b} {i} in each.",
    "{n} has {a} packs with {b} {i} each.",
    "{n} orders {a} crates with {b} {i} in each.",
    "{n} buys {a} packs of {b} {i}.",
    "{n} owns {a} boxes of {b} {i}.",
    "{n} owns {a} crates with {b} {i} in each.",
    "{n} orders {a} packs of {b} {i}.",
)
ASKED = (
    "How many {i} are there now?",
    "How many {i} are there in the end?",
    "How many {i} is that?",
    "What is the number of {i} now?",
    "How many {i} does that make?",
    "Find how many {i} there are.",
    "What is the number of {i} at the end?",
    "How many {i} are there?",
    "Find the number of {i} now.",
    "How many {i} are there at the end?",
    "Find the number of {i}.",
)
THEN_MORE = (
    "Then {b} more come.",
    "After that, {b} more are added.",
    "Later {n} gets another {b}.",
    "{b} more follow.",
)
THEN_LESS = ("Then {b} get lost.", "After that, {b} are given away.", "Later {n} sells {b}.", "{b} are taken away.")
THEN_TWICE = ("Then the number doubles.", "After that, there are twice as many.", "Later {n} doubles the number.")
ASIDES = (
    "{m} has {x} {c} {p}s.",
    "It is {x} degrees outside.",
    "{m} is {x} years old.",
    "The shop opens at {x}.",
    "{m} lives at number {x}.",
)


class Story:
    """Sentences and working that grow together."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.name, self.other = draw.names(2)
        self.items = draw.choice(ITEMS)
        self.sentences: list[str] = []
        self.working: list[str] = []
        self.total = 0

    def begin(self, kind: str) -> None:
        """The first step: ``+``, ``-`` or ``*``."""
        draw = self._draw
        if kind == "*":
            a, b = draw.randint(2, 9), draw.randint(2, 9)
        else:
            a, b = draw.pair(2, 31)
            while kind == "-" and a == b:
                a, b = draw.pair(2, 31)
            a, b = (max(a, b), min(a, b)) if kind == "-" else (a, b)
        told = draw.phrase({"+": MORE, "-": LESS, "*": GROUPS}[kind])
        self.sentences.append(told.format(n=self.name, i=self.items, a=a, b=b))
        self._work(a, kind, b)

    def go_on(self) -> None:
        """One more step."""
        draw = self._draw
        kind = draw.choice("++--*") if self.total < 50 else draw.choice("+-")
        if kind == "-" and self.total < 3:
            kind = "+"
        number = 2
        while kind != "*":
            number = draw.randint(2, min(30, self.total - 1) if kind == "-" else 30)
            if draw.may_work(self.total, number):
                break
        told = draw.choice({"+": THEN_MORE, "-": THEN_LESS, "*": THEN_TWICE}[kind])
        self.sentences.append(told.format(n=self.name, b=number))
        self._work(self.total, kind, number)

    def digress(self) -> None:
        """A sentence with a number that does not count."""
        draw = self._draw
        aside = draw.choice(ASIDES).format(
            m=self.other, x=draw.randint(2, 40), c=draw.choice(COLOURS), p=draw.choice(PETS)
        )
        self.sentences.insert(draw.randint(0, len(self.sentences)), aside)

    def task(self, level: int) -> Task:
        """The story with its question."""
        question = self._draw.phrase(ASKED).format(i=self.items)
        text = " ".join([*self.sentences, question])
        return Task(FAMILY, level, ask(text), str(self.total), "\n".join(self.working))

    def _work(self, a: int, sign: str, b: int) -> None:
        self.total = {"+": a + b, "-": a - b, "*": a * b}[sign]
        self.working.append(f"{a} {sign} {b} = {self.total}")


def story(draw: Draw, level: int, steps: int, first: str) -> Task:
    """A story of ``steps``; from level 2 on sometimes with a number that does not count."""
    told = Story(draw)
    told.begin(draw.choice(first))
    for _ in range(steps - 1):
        told.go_on()
    if level > 1 and draw.random() < 0.4:
        told.digress()
    return told.task(level)


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (lambda draw: story(draw, 1, 1, "+-"),),
    2: (lambda draw: story(draw, 2, 2, "+-*"), lambda draw: story(draw, 2, 1, "*")),
    3: (lambda draw: story(draw, 3, 3, "+-*"),),
}
