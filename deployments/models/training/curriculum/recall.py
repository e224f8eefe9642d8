"""Many questions about one text: who has what, asked again and again of the same persons.

A look-up by a name of several tokens is found late by a model that gets one answer per table to learn from. Here each
text is asked about several times in one conversation, so that every token of a text that is read pays for itself.
"""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.extraction import QUESTIONS, people
from deployments.models.training.curriculum.tables import COLUMNS, LOOK_UP, WHO_HAS, table
from deployments.models.training.curriculum.task import Turn

Question = tuple[str, str]  # and its answer


def recall(draw: Draw) -> tuple[Turn, ...]:
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
        return draw.phrase(QUESTIONS[field]).format(n=person.name), person.value(field)

    return " ".join(person.says(draw, field) for person, field in facts), question
