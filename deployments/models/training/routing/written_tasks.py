"""Tasks in written wordings, with names, texts and tables of the training side to ask about."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.models.training.curriculum import words
from deployments.models.training.curriculum.draw import is_held_out
from deployments.models.training.curriculum.task import Task
from deployments.models.training.routing.everyday_questions import NOUNS
from deployments.models.training.routing.other_values import FITTED_VALUES, JUDGED_VALUES
from deployments.models.training.routing.wordings import read_wordings

PER_WORDING, PER_CHOICE = 24, 120  # requests made of a wording, and of one with much to choose
KNOWN_NAMES = 0.6  # of the names; the others are made of syllables
REVIEWED = words.split("film meal trip book concert room service teacher party hotel song lesson")


@dataclass(frozen=True, slots=True)
class Half:
    """The words that may be asked about."""

    names: Sequence[str]
    cities: Sequence[str]
    jobs: Sequence[str]
    pets: Sequence[str]
    items: Sequence[str]
    nouns: Sequence[str]


def _fitted(known: tuple[str, ...]) -> list[str]:
    return [*FITTED_VALUES[known], *(word for word in known if not is_held_out(word))]


def _half(chosen: Callable[[tuple[str, ...]], Sequence[str]], nouns: Sequence[str]) -> Half:
    known = (words.NAMES, words.CITIES, words.JOBS, words.PETS, words.ITEMS)
    names, cities, jobs, pets, items = map(chosen, known)
    return Half(names, cities, jobs, pets, items, nouns)


FITTED_HALF = _half(_fitted, [word for word in words.NOUNS if not is_held_out(word)])
JUDGED_HALF = _half(JUDGED_VALUES.__getitem__, NOUNS.split())
COLOURS = [word for word in words.COLOURS if not is_held_out(word)]


def written_tasks(name: str, half: Half, seed: int) -> list[Task]:
    """Returns tasks of all wordings in the file ``name``. The same for the same seed."""
    draw = random.Random(f"written tasks {seed}")
    made = []
    for wording in read_wordings(name):
        count = PER_CHOICE if wording.many else PER_WORDING if "{" in wording.text else PER_WORDING // 4
        made += [wording.filled(_values(half, wording.family, draw), draw) for _ in range(count)]
    return made


def _values(half: Half, family: str, draw: random.Random) -> Mapping[str, str]:
    """What may stand in a wording's places: a text, a table, numbers and words, all about the same names."""
    people = [_name(half, draw) for _ in range(4)]
    name, other = people[:2]
    listed = draw.sample(half.nouns, draw.randint(2, 6))
    city, job = draw.choice(half.cities), draw.choice(half.jobs)
    phone = f"{draw.randint(200, 999)}-{draw.randint(1000, 9999)}"
    email = f"{name.lower()}{draw.randint(1, 99)}@{draw.choice(words.DOMAINS)}"
    day = f"{draw.randint(1, 28)} {draw.choice(words.MONTHS)} {draw.randint(1940, 2035)}"
    facts = (
        draw.choice((f"{name} lives in {city}.", f"The home of {name} is {city}.", f"{name} moved to {city}.")),
        draw.choice((f"Call {name} at {phone}.", f"{name} can be called at {phone}.", f"{name}'s number is {phone}.")),
        draw.choice((f"{name} works as a {job}.", f"The {job} is {name}.", f"{name} is a {job}.")),
        draw.choice((f"Write to {email}.", f"The e-mail of {name} is {email}.", f"Mail {name} at {email}.")),
        draw.choice((f"{name} was born on {day}.", f"The party of {name} is on {day}.", f"{name} arrives on {day}.")),
        f"{other} is from {draw.choice(half.cities)}.",
        f"{other} is a {draw.choice(half.jobs)}.",
    )
    thing = draw.choice(half.items).removesuffix("s") if family == "word problems" else draw.choice(REVIEWED)
    return {
        "facts": " ".join(draw.sample(facts, draw.randint(1, 4))),
        "table": _table(half, people, draw),
        "name": name,
        "name2": other,
        "city": city,
        "job": job,
        "phone": phone,
        "email": email,
        "date": day,
        "n": str(draw.randint(2, 99)),
        "m": str(draw.randint(2, 60)),
        "k": str(draw.randint(2, 12)),
        "w": draw.choice(half.nouns),
        "words": draw.choice((" ", ", ")).join(listed),
        "WORDS": " ".join(listed).upper(),
        "numbers": ", ".join(str(draw.randint(1, 99)) for _ in range(draw.randint(3, 6))),
        "things": draw.choice(half.items),
        "thing": thing,
    }


def _name(half: Half, draw: random.Random) -> str:
    if draw.random() < KNOWN_NAMES:
        return draw.choice(half.names)
    return "".join(draw.choices(words.SYLLABLES, k=draw.randint(2, 3))).capitalize()


def _table(half: Half, people: Sequence[str], draw: random.Random) -> str:
    """A table of ``people``."""
    columns: dict[str, Sequence[str]] = {
        "age": [str(age) for age in range(10, 100)],
        "colour": COLOURS,
        "pet": half.pets,
        "city": half.cities,
    }
    between = draw.choice((" | ", ", "))
    chosen = draw.sample(sorted(columns), draw.randint(1, 3))
    rows = [["name", *chosen], *([person, *(draw.choice(columns[column]) for column in chosen)] for person in people)]
    return "\n".join(map(between.join, rows))
