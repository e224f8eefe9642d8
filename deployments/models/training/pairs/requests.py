"""Requests made from slots. The same slots in two frames are one question; with one slot changed they are two.

Every rule returns a pair of texts that say one thing, and texts that say another. The pairs of
``load_tests/cache`` are made from frames, verbs and objects of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from deployments.models.training.pairs.frames import Frames, Request
from deployments.models.training.pairs.quantities import conversion, counted, measured, version
from deployments.models.training.pairs.relations import even, journey, role, translation
from deployments.models.training.pairs.wording import HOW, WHAT, WORDS, WRITE, couples

OPPOSITES: Final = couples("opposites")


def opposite_action(draw: Frames) -> Request:
    one, other = draw.rng.sample(draw.rng.choice(OPPOSITES), 2)
    thing, another = draw.two("objects")
    where = draw.rng.choice(
        ("", f" in {draw.one('tools')}", f" on {draw.one('tools')}", f" using {draw.one('coding')}")
    )
    return draw.request(HOW, f"{one} {thing}{where}", f"{other} {thing}{where}", f"{one} {another}{where}")


def programming(draw: Frames) -> Request:
    (task, another), (one, other) = draw.two("tasks"), draw.two("coding")
    return draw.request(HOW, f"{task} in {one}", f"{task} in {other}", f"{another} in {one}")


def identifier(draw: Frames) -> Request:
    one, other, third = draw.rng.sample(WORDS["identifiers"], 3)
    if draw.rng.random() < 0.4:
        both = (
            "What is the difference between {x}?",
            "{x}: what is the difference?",
            "How do {x} differ?",
            "Compare {x}.",
        )
        said = draw.request(both, f"{one} and {other}", f"{one} and {third}")
        return Request(said.said, said.again.replace(f"{one} and {other}", f"{other} and {one}"), said.others)
    frames = ("What does {x} do?", "How do I use {x}?", "Explain {x}", "What is {x} for?", "When should I use {x}?")
    frame = draw.rng.choice(frames)
    return Request(
        frame.replace("{x}", one),
        draw.rng.choice(("{x}", "Please: {x}", "{x} Thanks")).replace("{x}", frame.replace("{x}", one)),
        (frame.replace("{x}", other),),
    )


def chore(draw: Frames) -> Request:
    task, another = draw.two("chores")
    n, m = draw.number()
    unit = draw.one("durations")
    extra, changed = draw.rng.choice(
        (
            (" without spending money", " without help"),
            (f" in {n} {unit}", f" in {m} {unit}"),
            (" at home", " outdoors"),
            (f" in {n} {unit}", f" in {n} {draw.one('durations')}s"),
            (" with a budget", " without a budget"),
            ("", " twice"),
            (f" before {draw.one('weekdays')}", f" after {draw.one('weekdays')}"),
            (" as a beginner", " as a professional"),
            (f" in {draw.one('places')}", " abroad"),
            ("", " without tools"),
            (f" on {draw.one('weekdays')}", " tomorrow"),
        )
    )
    negated = draw.rng.choice(
        ("How do I not {x}?", "Why should I not {x}?", "How can I avoid having to {x}?", "What if I don't {x}?")
    )
    request = draw.request(HOW, f"{task}{extra}", f"{another}{extra}", f"{task}{changed}")
    return request._replace(others=(*request.others, negated.replace("{x}", f"{task}{extra}")))


def attribute(draw: Frames) -> Request:
    (what, another), (one, other) = draw.two("attributes"), draw.two("places")
    said, again = f"the {what} of {one}", draw.rng.choice((f"the {what} of {one}", f"{one}'s {what}"))
    request = draw.request(WHAT, said, f"the {what} of {other}", f"the {another} of {one}")
    return request._replace(again=draw.say(WHAT, again))


def saying(draw: Frames) -> Request:
    one, other = draw.two("tongues")
    phrase, another = draw.two("chores")
    frames = (
        'How do you say "{p}" in {b}?',
        'Translate "{p}" to {b}.',
        '"{p}" in {b}?',
        'What is the {b} for "{p}"?',
        'Say "{p}" in {b}',
    )

    def text(p: str, b: str) -> str:
        return draw.rng.choice(frames).replace("{p}", p).replace("{b}", b)

    return Request(text(phrase, one), text(phrase, one), (text(phrase, other), text(another, one)))


def writing(draw: Frames) -> Request:
    (form, other_form), (topic, another) = draw.two("forms"), draw.two("topics")
    (style, other_style), (audience, other_audience) = draw.two("styles"), draw.two("audiences")
    n, m = draw.number()
    extra, changed = draw.rng.choice(
        (
            ("", f" {audience}"),
            (f" in a {style} tone", f" in a {other_style} tone"),
            (f" {audience}", f" {other_audience}"),
            (f" in {n} words", f" in {m} words"),
            (f" with {n} sentences", f" with {m} sentences"),
            (f" in {draw.one('tongues')}", f" in {draw.one('tongues')}"),
            ("", " without adjectives"),
        )
    )
    about, again = draw.rng.choice(
        (("about", "on"), ("about", "about"), ("on", "about"), ("about", "on the subject of"))
    )
    said = draw.say(WRITE, f"{form} {about} {topic}{extra}")
    others = [f"{other_form} {about} {topic}{extra}", f"{form} {about} {another}{extra}"]
    if changed != extra:
        others.append(f"{form} {about} {topic}{changed}")
    return Request(
        said, draw.say(WRITE, f"{form} {again} {topic}{extra}"), tuple(draw.say(WRITE, other) for other in others)
    )


def work(draw: Frames) -> Request:
    (one, other), n = draw.two("works"), draw.rng.randint(1, 9)
    what, another = draw.rng.sample(
        (
            "Summarize chapter {n} of {w}",
            "Who wrote {w}?",
            "When was {w} released?",
            "What is the main theme of {w}?",
            "How does {w} end?",
            "How does {w} begin?",
            "Who is the villain of {w}?",
            "Who is the hero of {w}?",
            "Is {w} worth my time?",
        ),
        2,
    )
    again = draw.rng.choice(("{x}", "Please answer: {x}", "{x} Thanks.", "I'd like to know: {x}", "quick one: {x}"))

    def text(frame: str, w: str, number: int = n) -> str:
        return frame.replace("{w}", w).replace("{n}", str(number))

    others = [text(what, other), text(another, one)]
    if "{n}" in what:
        others.append(text(what, one, n + 1))
    return Request(text(what, one), again.replace("{x}", text(what, one)), tuple(others))


def yes_no(draw: Frames) -> Request:
    """A yes-no question with its negation, its opposite and its quantifier."""
    one, other = draw.rng.sample(draw.rng.choice(couples("prefixed")[:40]), 2)
    task, another = draw.two("chores")
    place = draw.rng.choice(
        ("", f" in {draw.one('places')}", f" on a {draw.one('weekdays')}", f" at the age of {draw.rng.randint(3, 90)}")
    )
    frames = (
        "Is it {q} to {x}?",
        "Would it be {q} to {x}?",
        "I wonder if it is {q} to {x}",
        "Tell me whether it's {q} to {x}.",
    )
    negated = (
        "Is it not {q} to {x}?",
        "Isn't it {q} to {x}?",
        "Why is it not {q} to {x}?",
        "When is it not {q} to {x}?",
    )

    def text(choice: tuple[str, ...], q: str, x: str) -> str:
        return draw.rng.choice(choice).replace("{q}", q).replace("{x}", x + place)

    return Request(
        text(frames, one, task),
        text(frames, one, task),
        (text(frames, other, task), text(negated, one, task), text(frames, one, another)),
    )


RULES: Final[tuple[Callable[[Frames], Request], ...]] = (
    opposite_action,
    opposite_action,
    programming,
    identifier,
    chore,
    chore,
    attribute,
    conversion,
    measured,
    translation,
    saying,
    writing,
    writing,
    journey,
    role,
    role,
    even,
    work,
    counted,
    version,
    yes_no,
)
