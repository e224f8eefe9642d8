"""Look-ups in small tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, ask
from deployments.models.training.curriculum.words import CITIES, COLOURS, DRINKS, PETS, SPORTS

FAMILY = "tables"

COLUMNS = {"city": CITIES, "colour": COLOURS, "drink": DRINKS, "pet": PETS, "sport": SPORTS}
LOOK_UP = (
    "What is the {c} of {n}?",
    "Which {c} does {n} have?",
    "Find the {c} of {n}.",
    "{c} of {n}?",
    "Look up the {c} of {n}.",
    "Which {c} belongs to {n}?",
    "Read off the {c} of {n}.",
    "Tell me which {c} {n} has.",
    "What is {n}'s {c}?",
    "Tell me {n}'s {c}.",
    "What {c} belongs to {n}?",
    "Tell me the {c} of {n}.",
    "What {c} does {n} have?",
)
WHO_HAS = (
    "Who has the {c} {v}?",
    "Which person has the {c} {v}?",
    "Whose {c} is {v}?",
    "Find the person with the {c} {v}.",
    "Who is it with the {c} {v}?",
    "Tell me the person with the {c} {v}.",
    "Who is the one with the {c} {v}?",
    "Tell me whose {c} is {v}.",
    "Name the one who has the {c} {v}.",
    "Name the person with the {c} {v}.",
    "Tell me who has the {c} {v}.",
)
LARGEST = (
    "Who has the highest {c}?",
    "Which person has the largest {c}?",
    "Find the person with the highest {c}.",
    "Whose {c} is the largest?",
    "Name the person with the largest {c}.",
    "Tell me the person with the highest {c}.",
    "Which one has the highest {c}?",
    "Tell me whose {c} is the largest.",
    "Who is it with the largest {c}?",
    "Who has the largest {c}?",
    "Tell me who has the highest {c}.",
)
SMALLEST = (
    "Who has the lowest {c}?",
    "Which person has the smallest {c}?",
    "Find the person with the lowest {c}.",
    "Whose {c} is the smallest?",
    "Name the person with the smallest {c}.",
    "Tell me the person with the lowest {c}.",
    "Which one has the lowest {c}?",
    "Tell me whose {c} is the smallest.",
    "Who is it with the smallest {c}?",
    "Who has the smallest {c}?",
    "Tell me who has the lowest {c}.",
)
HOW_MANY = (
    "How many have the {c} {v}?",
    "How many people have the {c} {v}?",
    "Count the people with the {c} {v}.",
    "How often is the {c} {v}?",
    "Tell me how many people have the {c} {v}.",
    "How many of them have the {c} {v}?",
    "How many persons are there with the {c} {v}?",
    "How many persons have the {c} {v}?",
    "Tell me how many have the {c} {v}.",
)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of strings under ``header``; the first column is the name."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self, draw: Draw) -> str:
        """With bars, or with commas."""
        bar = draw.choice((" | ", " | ", ", "))
        return "\n".join(bar.join(row) for row in (self.header, *self.rows))


def table(draw: Draw, rows: int, columns: list[str]) -> Table:
    """Names and ``columns``, with no value twice in a column."""
    values = [draw.names(rows)]
    for column in columns:
        if column in COLUMNS:
            pool = COLUMNS[column]
            values.append(draw.cities(rows) if column == "city" else draw.mix(pool, rows))
        else:
            values.append([str(number) for number in draw.sample(range(10, 100), rows)])
    return Table(("name", *columns), tuple(zip(*values, strict=True)))


def asked(draw: Draw, known: Table, question: str) -> str:
    """The table and the question, in either order."""
    text = known.text(draw)
    return draw.choice((f"{text}\n{question}", f"{question}\n{text}"))


def look_up(draw: Draw, level: int, rows: tuple[int, int], columns: int) -> Task:
    """The value of a person in a column, or the other way round."""
    names = draw.sample(["age", *COLUMNS], columns)
    known = table(draw, draw.randint(*rows), names)
    row, column = draw.choice(known.rows), draw.randint(1, columns)
    name, value = known.header[column], row[column]
    if draw.random() < 0.6:
        return Task(FAMILY, level, ask(asked(draw, known, draw.phrase(LOOK_UP).format(c=name, n=row[0]))), value)
    return Task(FAMILY, level, ask(asked(draw, known, draw.phrase(WHO_HAS).format(c=name, v=value))), row[0])


def extreme(draw: Draw) -> Task:
    """Who has the largest or smallest number, among three or four."""
    column = draw.choice(("age", "score"))
    other = draw.choice(list(COLUMNS))
    columns = draw.choice(([column], [column, other], [other, column]))
    known = table(draw, draw.randint(3, 4), columns)
    place = known.header.index(column)
    ranked = sorted(known.rows, key=lambda row: int(row[place]))
    templates, row = draw.choice(((LARGEST, ranked[-1]), (SMALLEST, ranked[0])))
    return Task(FAMILY, 3, ask(asked(draw, known, draw.phrase(templates).format(c=column))), row[0])


def count(draw: Draw) -> Task:
    """How many of four to six rows have a value."""
    column = draw.choice(("colour", "drink", "pet"))
    values = draw.mix(COLUMNS[column], 3)
    rows = [(name, draw.choice(values)) for name in draw.names(draw.randint(4, 6))]
    known = Table(("name", column), tuple(rows))
    number = sum(row[1] == values[0] for row in rows)
    return Task(FAMILY, 3, ask(asked(draw, known, draw.phrase(HOW_MANY).format(c=column, v=values[0]))), str(number))


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (lambda draw: look_up(draw, 1, (2, 3), 1),),
    2: (lambda draw: look_up(draw, 2, (3, 4), 3),),
    3: (lambda draw: look_up(draw, 3, (5, 6), 4), extreme, count),
}
