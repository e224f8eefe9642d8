"""Sums, differences and products, in one step and in several."""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, ask

FAMILY = "arithmetic"

QUESTIONS = (
    "What is {x}?",
    "Calculate {x}.",
    "{x} = ?",
    "Compute {x}.",
    "How much is {x}?",
    "Work out {x}.",
    "{x}",
    "Please work out {x}.",
    "Tell me how much {x} is.",
    "Tell me what {x} is.",
    "Please calculate {x}.",
)
STEPS = (
    "What is {x}? Show the steps.",
    "Calculate {x} step by step.",
    "Compute {x}, one step at a time.",
    "Work out {x} and show your steps.",
    "{x} = ? Show each step.",
    "Please work out {x} step by step.",
    "How much is {x}? Show each step.",
    "Please compute {x} and show the steps.",
    "How much is {x}? Show the steps.",
    "Please calculate {x} step by step.",
)
IN_WORDS = {"+": ("{a} plus {b}", "the sum of {a} and {b}"), "-": ("{a} minus {b}",), "*": ("{a} times {b}",)}


def spelt(draw: Draw, a: int, sign: str, b: int) -> str:
    """The expression in signs, or sometimes in words."""
    if draw.random() < 0.25:
        return draw.choice(IN_WORDS[sign]).format(a=a, b=b)
    return f"{a} {sign} {b}"


def one_step(draw: Draw, level: int, low: int, high: int) -> Task:
    """A sum or a difference of two numbers in [low, high]."""
    a, b = draw.pair(low, high)
    if draw.random() < 0.5:
        expression, answer = spelt(draw, a, "+", b), a + b
    else:
        a, b = max(a, b), min(a, b)
        expression, answer = spelt(draw, a, "-", b), a - b
    return Task(FAMILY, level, ask(draw.phrase(QUESTIONS).format(x=expression)), str(answer))


def product(draw: Draw) -> Task:
    """One of the multiplication table, which has to be known by heart: only the phrasing is held out."""
    a, b = draw.randint(2, 10), draw.randint(2, 10)
    return Task(FAMILY, 2, ask(draw.phrase(QUESTIONS).format(x=spelt(draw, a, "*", b))), str(a * b))


def several_steps(draw: Draw) -> Task:
    """Three or four numbers below 30, from left to right, with the working."""
    while True:
        numbers = draw.unseen(lambda: tuple(draw.randint(1, 30) for _ in range(draw.randint(3, 4))))
        total, expression, working, fine = numbers[0], str(numbers[0]), [], True
        for number in numbers[1:]:
            sign = "-" if total > number and draw.random() < 0.45 else "+"
            result = total - number if sign == "-" else total + number
            fine = fine and draw.may_work(total, number)
            expression += f" {sign} {number}"
            working.append(f"{total} {sign} {number} = {result}")
            total = result
        if fine:
            break
    question = draw.phrase(STEPS).format(x=expression)
    return Task(FAMILY, 3, ask(question), str(total), "\n".join(working))


def product_and_sum(draw: Draw) -> Task:
    """A product and one more number, with the working."""
    while True:
        a, b, c = draw.unseen(lambda: (draw.randint(2, 9), draw.randint(2, 9), draw.randint(1, 30)))
        if draw.may_work(a * b, c):
            break
    first = draw.random() < 0.5
    expression = f"{a} * {b} + {c}" if first else f"{c} + {a} * {b}"
    second = f"{a * b} + {c} = {a * b + c}" if first else f"{c} + {a * b} = {a * b + c}"
    question = draw.phrase(STEPS).format(x=expression)
    return Task(FAMILY, 3, ask(question), str(a * b + c), f"{a} * {b} = {a * b}\n{second}")


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (lambda draw: one_step(draw, 1, 0, 20),),
    2: (lambda draw: one_step(draw, 2, 10, 99), lambda draw: one_step(draw, 2, 10, 99), product),
    3: (several_steps, product_and_sum, lambda draw: one_step(draw, 3, 100, 999)),
}
