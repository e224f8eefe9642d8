"""Who has what, asked again and again of the same text: pairs in another order, and many questions about one text.

To look a value up by a name of several tokens is found late by a model that gets one answer per table to learn from
(cf. Arora et al. 2024, "Zoology", on associative recall). Pairs to be told in another order ask for one at every few
tokens; questions in one conversation teach to ask for it in words.
"""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.extraction import CALLED, CONTACT, QUESTIONS, people
from deployments.models.training.curriculum.tables import COLUMNS, LOOK_UP, WHO_HAS, table
from deployments.models.training.curriculum.task import Turn
from deployments.models.training.curriculum.words import COLOURS, JOBS

Question = tuple[str, str]  # and its answer


ORDERS = ("In this order: ", "Now: ", "Order: ", "List again as ")
PAIRS = 0.5  # of the conversations


def recall(draw: Draw) -> tuple[Turn, ...]:
    """Pairs in another order, or several questions on one text."""
    return pairs(draw) if draw.random() < PAIRS else questions(draw)


def pairs(draw: Draw) -> tuple[Turn, ...]:
    """Three to ten names with a value each, to be told in another order."""
    count = draw.randint(3, 10)
    makers: tuple[Callable[[int], list[str]], ...] = (
        draw.cities,
        lambda n: draw.mix(COLOURS, n),
        lambda n: draw.mix(JOBS, n),
        lambda n: [str(number) for number in draw.sample(range(10, 100), n)],
        lambda n: [draw.invented().lower() for _ in range(n)],
    )
    known = list(zip(draw.names(count), draw.choice(makers)(count), strict=True))
    between, end = draw.choice((" ", ": ", " | ", ", ", " has ", " = ")), draw.choice(("\n", "; ", ". "))
    text = _told(known, between, end)
    draw.shuffle(known)
    order = draw.choice(ORDERS) + ", ".join(name for name, _ in known)
    return Turn("user", f"{text}\n{order}"), Turn("assistant", _told(known, between, end))


def _told(known: list[tuple[str, str]], between: str, end: str) -> str:
    return end.join(between.join(pair) for pair in known)


def questions(draw: Draw) -> tuple[Turn, ...]:
    """A conversation of four to eight questions on one table or one text."""
    text, question = draw.choice((_of_table, _of_table, _of_text))(draw)
    turns: list[Turn] = []
    for _ in range(draw.randint(4, 8)):
        said, answer = question()
        if not turns:
            said = draw.choice((f"{text}\n{said}", f"{said}\n{text}", f"{text} {said}"))
        turns += (Turn("user", said), Turn("assistant", answer))
    return tuple(turns)


def _of_table(draw: Draw) -> tuple[str, Callable[[], Question]]:
    columns = draw.sample(["age", *COLUMNS], draw.randint(1, 4))
    known = table(draw, draw.randint(2, 6), columns)

    def question() -> Question:
        row, column = draw.choice(known.rows), draw.randint(1, len(columns))
        name, value = known.header[column], row[column]
        if draw.random() < 0.6:
            return draw.phrase(LOOK_UP).format(c=name, n=row[0]), value
        return draw.phrase(WHO_HAS).format(c=name, v=value), row[0]

    return known.text(draw), question


def _of_text(draw: Draw) -> tuple[str, Callable[[], Question]]:
    persons = people(draw, draw.randint(2, 4))
    fields = draw.sample(list(QUESTIONS), draw.randint(1, 2))
    facts = [(person, field) for person in persons for field in fields]
    draw.shuffle(facts)

    def question() -> Question:
        person, field = draw.choice(facts)
        if field in CALLED:
            return draw.phrase(CONTACT).format(f=CALLED[field], n=person.name), person.value(field)
        return draw.phrase(QUESTIONS[field]).format(n=person.name), person.value(field)

    return " ".join(person.says(draw, field) for person, field in facts), question
