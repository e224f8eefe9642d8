"""Requests made from slots. The same slots in two frames are one question; with one slot changed they are two.

Every rule returns a pair of texts that say one thing, and texts that say another. The pairs of
``load_tests/cache`` are made from frames, verbs and objects of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from deployments.models.training.pairs.wording import FAMILIES, HOW, WHAT, WORDS, WRITE, couples

OPPOSITES: Final = couples("opposites")
UNITS: Final = ("lengths", "weights", "volumes", "temperatures", "durations", "sizes")


class Request(NamedTuple):
    """``said`` and ``again``: one request in two ways. ``others``: requests that differ from it in one thing."""

    said: str
    again: str
    others: tuple[str, ...]


class Frames:
    """Draws frames and words."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def one(self, name: str) -> Any:
        return self.rng.choice(FAMILIES.get(name) or WORDS[name])

    def two(self, name: str) -> tuple[Any, Any]:
        first, second = self.rng.sample(FAMILIES.get(name) or WORDS[name], 2)
        return first, second

    def say(self, frames: tuple[str, ...], content: str) -> str:
        text = self.rng.choice(frames).replace("{x}", content)
        return text[0].upper() + text[1:] if self.rng.random() < 0.7 else text.lower()

    def request(self, frames: tuple[str, ...], content: str, *others: str) -> Request:
        """The other contents stand in the frame of the first half of the time: only the change tells them apart."""
        frame = self.rng.choice(frames)
        again = (frame,) if self.rng.random() < 0.15 else frames
        said = self.say((frame,), content)
        wrong = tuple(self.say((frame,) if self.rng.random() < 0.6 else frames, other) for other in others)
        return Request(said, self.say(again, content), wrong)

    def number(self) -> tuple[int, int]:
        first = self.rng.choice((self.rng.randint(2, 12), self.rng.randint(13, 100), self.rng.randint(100, 5000)))
        return first, first + self.rng.choice((1, 2, 5, 10, first, 9 * first))


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


def translation(draw: Frames) -> Request:
    one, other, third = draw.rng.sample(FAMILIES["tongues"], 3)
    phrase, another = draw.rng.choice(("tasks", "chores")), draw.one("objects")
    phrase = draw.one(phrase)
    frames = (
        'Translate "{p}" from {a} to {b}',
        'Translate "{p}" into {b} from {a}',
        'From {a} to {b}, please: "{p}"',
        '{a} to {b} translation of "{p}"',
    )

    def text(p: str, a: str, b: str) -> str:
        return draw.rng.choice(frames).replace("{p}", p).replace("{a}", a).replace("{b}", b)

    return Request(
        text(phrase, one, other),
        text(phrase, one, other),
        (text(phrase, other, one), text(phrase, one, third), text(another, one, other)),
    )


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


def journey(draw: Frames) -> Request:
    one, other, third = draw.rng.sample(FAMILIES["places"], 3)
    day, another = draw.two(draw.rng.choice(("weekdays", "months")))
    how = draw.rng.choice(
        (
            "flights",
            "trains",
            "buses",
            "cheap flights",
            "the fastest route",
            "a parcel",
            "driving directions",
            "the ferry",
        )
    )
    when, changed = draw.rng.choice(
        ((f" on {day}", f" on {another}"), (f" before {day}", f" after {day}"), ("", f" on {day}"), ("", " and back"))
    )
    frames = (
        "Find {h} from {a} to {b}{w}",
        "{h} from {a} to {b}{w}",
        "I am looking for {h} from {a} to {b}{w}.",
        "I need {h} to {b} from {a}{w}",
        "Show me {h} leaving {a} for {b}{w}",
        "Are there {h} between {a} and {b}, starting in {a}{w}?",
        "{h} {a} to {b}{w}",
    )

    def text(a: str, b: str, w: str) -> str:
        return draw.rng.choice(frames).replace("{h}", how).replace("{a}", a).replace("{b}", b).replace("{w}", w)

    return Request(
        text(one, other, when),
        text(one, other, when),
        (text(other, one, when), text(one, third, when), text(one, other, changed)),
    )


ROLES: Final = (
    ("Does {a} report to {b}?", "Is {a} one of the people who report to {b}?"),
    ("Did {a} beat {b}?", "Has {a} won against {b}?"),
    ("Does {a} owe {b} money?", "Is {a} in debt to {b}?"),
    ("Is {a} older than {b}?", "Is {a} of a greater age than {b}?"),
    ("Did {a} teach {b}?", "Was {a} the teacher of {b}?"),
    ("Does {a} love {b}?", "Is {a} in love with {b}?"),
    ("Did {a} sell the house to {b}?", "Was it {a} who sold the house to {b}?"),
    ("Why did {a} call {b}?", "What did {a} call {b} for?"),
    ("Is {a} bigger than {b}?", "Is the size of {a} greater than that of {b}?"),
    ("Did {a} hire {b}?", "Was {b} hired by {a}?"),
    ("Does {a} depend on {b}?", "Is {b} something that {a} depends on?"),
    ("Can {a} replace {b}?", "Can {b} be replaced by {a}?"),
    ("How do I migrate from {a} to {b}?", "What are the steps for moving to {b} from {a}?"),
    ("Does {a} cause {b}?", "Is {b} caused by {a}?"),
    ("Should I switch from {a} to {b}?", "Is it worth leaving {a} for {b}?"),
    ("Is {a} better than {b}?", "Does {a} beat {b}?"),
    ("Why is {a} more popular than {b}?", "What makes {a} more popular than {b}?"),
    ("Did {a} come before {b}?", "Was {a} earlier than {b}?"),
    ("How does {a} affect {b}?", "What is the effect of {a} on {b}?"),
    ("How do I import {a} into {b}?", "Import {a} into {b}: how?"),
    ("Did {a} buy {b}?", "Was {b} bought by {a}?"),
    ("Who told {a} about {b}?", "From whom did {a} learn about {b}?"),
    ("How can {a} learn from {b}?", "What can {a} learn from {b}?"),
    ("Is {a} part of {b}?", "Does {b} include {a}?"),
)
EVEN: Final = (
    ("What is the difference between {a} and {b}?", "How do {a} and {b} differ?"),
    ("Is {a} married to {b}?", "Are {a} and {b} married?"),
    ("Compare {a} and {b}", "{a} vs {b}"),
    ("Which is better, {a} or {b}?", "Should I choose {a} or {b}?"),
    ("What do {a} and {b} have in common?", "In what are {a} and {b} alike?"),
    ("How far is {a} from {b}?", "What is the distance between {a} and {b}?"),
    ("Can I use {a} and {b} together?", "Is it possible to combine {a} with {b}?"),
    ("Are {a} and {b} related?", "Is there a relation between {a} and {b}?"),
)
PARTIES: Final = (
    "places",
    "names",
    "tools",
    "companies",
    "people",
    "coding",
    "formats",
    "drinks",
    "animals",
    "subjects",
    "sports",
    "planets",
)


def role(draw: Frames) -> Request:
    """Who does it to whom: the other way round is another question."""
    one, other, third = draw.rng.sample(FAMILIES[draw.rng.choice(PARTIES)], 3)
    frames = draw.rng.choice(ROLES)

    def text(a: str, b: str, frame: str) -> str:
        return frame.replace("{a}", a).replace("{b}", b)

    other_frame = draw.rng.choice(frames)
    return Request(
        text(one, other, frames[0]),
        text(one, other, draw.rng.choice(frames)),
        (text(other, one, frames[0]), text(other, one, other_frame), text(one, third, other_frame)),
    )


def even(draw: Frames) -> Request:
    """Relations that hold both ways: the other way round is the same question."""
    one, other, third = draw.rng.sample(FAMILIES[draw.rng.choice(PARTIES)], 3)
    frames = draw.rng.choice(EVEN)
    first, second = draw.rng.choice(frames), draw.rng.choice(frames)
    order = (other, one) if draw.rng.random() < 0.7 else (one, other)
    again = second.replace("{a}", order[0]).replace("{b}", order[1])
    return Request(
        first.replace("{a}", one).replace("{b}", other), again, (second.replace("{a}", one).replace("{b}", third),)
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
