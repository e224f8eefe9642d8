"""Drills: not evaluated, but at the root of the other tasks, and with something to learn in every token of the answer.

Copying: a model answers from its context once it has found out how to look for what came after the same words before
("induction heads", Olsson et al., 2022). Sums: an answer to one has two digits, an answer to eight has sixteen.
"""

from __future__ import annotations

from deployments.models.training.curriculum.draw import Draw, written
from deployments.models.training.curriculum.task import Task, ask
from deployments.models.training.curriculum.words import CITIES, COLOURS, JOBS, NOUNS

COPYING, SUMS = "copying", "sums"

REPEAT = (
    "Repeat: {x}",
    "Copy: {x}",
    "Say this again: {x}",
    "Write the same: {x}",
    "{x}\nRepeat that.",
    "Repeat after me: {x}",
)


def values(draw: Draw, count: int) -> list[str]:
    """Names, words, numbers, dates and addresses, as they come."""
    name = draw.name()
    makers = (
        draw.name,
        draw.invented,
        draw.phone,
        lambda: str(draw.randint(0, 9999)),
        lambda: written(draw.day()),
        lambda: draw.email(name),
        lambda: draw.one(CITIES),
        lambda: draw.choice(NOUNS),
        lambda: draw.choice(NOUNS).upper(),
        lambda: draw.choice((*JOBS, *COLOURS)),
    )
    return [draw.choice(makers)() for _ in range(count)]


def copying(draw: Draw) -> Task:
    """Three to twelve values, repeated."""
    text = draw.choice((" ", ", ", " | ", "\n")).join(values(draw, draw.randint(3, 12)))
    return Task(COPYING, 1, ask(draw.phrase(REPEAT).format(x=text)), text)


SOLVE = (
    "Solve each:\n{x}",
    "Calculate these:\n{x}",
    "Work these out:\n{x}",
    "{x}\nSolve all of them.",
    "Sums:\n{x}",
    "Compute each:\n{x}",
)
RANGES = ((0, 20), (0, 99), (0, 99), (10, 99), (100, 999))


def sums(draw: Draw) -> Task:
    """Three to eight sums, differences and products."""
    solved = []
    for _ in range(draw.randint(3, 8)):
        a, b = draw.pair(*draw.choice(RANGES))
        sign = draw.choice("++--*")
        if sign == "*":
            a, b = draw.randint(2, 10), draw.randint(2, 10)
        elif sign == "-":
            a, b = max(a, b), min(a, b)
        solved.append((f"{a} {sign} {b}", {"+": a + b, "-": a - b, "*": a * b}[sign]))
    question = draw.phrase(SOLVE).format(x="\n".join(expression for expression, _ in solved))
    return Task(SUMS, 1, ask(question), "\n".join(f"{expression} = {value}" for expression, value in solved))
