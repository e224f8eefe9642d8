"""Requests with numbers: amounts in units, lists of a length, versions. Another number or unit is another question."""

from __future__ import annotations

from typing import Final

from deployments.models.training.pairs.frames import Frames, Request
from deployments.models.training.pairs.wording import FAMILIES, HOW

UNITS: Final = ("lengths", "weights", "volumes", "temperatures", "durations", "sizes")


def conversion(draw: Frames) -> Request:
    kind = draw.rng.choice((*UNITS, "currencies"))
    one, other, third = draw.rng.sample(FAMILIES[kind], 3)
    n, m = draw.number()
    frames = (
        "Convert {n} {a} to {b}",
        "How many {b} are {n} {a}?",
        "{n} {a} in {b}",
        "What is {n} {a} in {b}?",
        "How much is {n} {a} in {b}?",
        "I have {n} {a}, what is that in {b}?",
        "{n} {a} to {b} please",
        "Express {n} {a} in {b}.",
    )

    def text(number: int, a: str, b: str) -> str:
        return draw.rng.choice(frames).replace("{n}", str(number)).replace("{a}", a).replace("{b}", b)

    return Request(
        text(n, one, other), text(n, one, other), (text(n, other, one), text(m, one, other), text(n, one, third))
    )


def measured(draw: Frames) -> Request:
    """One amount in two units: the unit is the whole difference."""
    one, other = draw.two(draw.rng.choice(UNITS))
    n, m = draw.number()
    shown = draw.rng.choice(
        (
            "Is {x} a lot?",
            "How long does it take to run {x}?",
            "Can I carry {x} on a plane?",
            "Is {x} too much?",
            "What happens after {x}?",
            "How much does {x} cost to ship?",
            "Should I wait {x}?",
            "How far is {x}?",
            "Is {x} enough for a week?",
            "How big is {x}?",
        )
    )
    again = draw.rng.choice(("Tell me: {x}", "{x} Please answer.", "I wonder, {x}", "{x}")).replace("{x}", shown)
    return Request(
        shown.replace("{x}", f"{n} {one}"),
        again.replace("{x}", f"{n} {one}"),
        (shown.replace("{x}", f"{n} {other}"), shown.replace("{x}", f"{m} {one}")),
    )


def counted(draw: Frames) -> Request:
    """Lists of a length, comparisons and limits."""
    n, m = draw.number()
    topic, another = draw.two("topics")
    limit, other_limit = draw.rng.choice(
        (
            ("at least", "at most"),
            ("more than", "less than"),
            ("exactly", "more than"),
            ("under", "over"),
            ("up to", "at least"),
        )
    )
    noun = draw.rng.choice(
        ("facts", "ideas", "arguments", "questions", "books", "tips", "examples", "titles", "names", "keywords")
    )
    side, other_side = draw.rng.choice(
        (("for", "against"), ("about", "not about"), ("in favour of", "against"), ("before", "after"))
    )
    frames = (
        "Give me {x}",
        "List {x}.",
        "I need {x}.",
        "Can you suggest {x}?",
        "Please provide {x}",
        "Show {x}",
        "Name {x}.",
        "Find {x}",
    )

    def text(quantity: str, subject: str, way: str) -> str:
        return f"{quantity} {noun} {way} {subject}"

    return draw.request(
        frames,
        text(f"{limit} {n}", topic, side),
        text(f"{other_limit} {n}", topic, side),
        text(f"{limit} {m}", topic, side),
        text(f"{limit} {n}", another, side),
        text(f"{limit} {n}", topic, other_side),
    )


def version(draw: Frames) -> Request:
    tool, another = draw.two("tools")
    major, minor = draw.rng.randint(1, 20), draw.rng.randint(0, 12)
    numbers = draw.rng.choice(
        (
            (f"{major}.{minor}", f"{major}.{minor + 1}"),
            (f"{major}", f"{major + 1}"),
            (f"v{major}.{minor}", f"v{major + 1}.{minor}"),
        )
    )
    action = draw.rng.choice(
        (
            "install",
            "uninstall",
            "upgrade to",
            "downgrade to",
            "download",
            "find the changes of",
            "fix the startup error of",
        )
    )
    other = draw.rng.choice(
        [each for each in ("install", "remove", "upgrade to", "compile", "get the licence of") if each != action]
    )
    return draw.request(
        HOW,
        f"{action} {tool} {numbers[0]}",
        f"{action} {tool} {numbers[1]}",
        f"{action} {another} {numbers[0]}",
        f"{other} {tool} {numbers[0]}",
    )
