"""Pulling a field, an e-mail address or a date out of a text, also as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from deployments.models.training.curriculum.draw import Draw, iso, written
from deployments.models.training.curriculum.task import Task, ask
from deployments.models.training.curriculum.words import JOBS

FAMILY = "extraction"

CITY = (
    "Where does {n} live?",
    "In which city does {n} live?",
    "Which city does {n} live in?",
    "What is {n}'s city?",
    "Name the city where {n} lives.",
    "{n} lives in which city?",
    "Find the city of {n}.",
    "What city does {n} live in?",
    "Tell me where {n} lives.",
    "Where is {n} living?",
    "What is the city {n} lives in?",
    "Tell me the city {n} lives in.",
    "What city is {n} living in?",
)
JOB = (
    "What is {n}'s job?",
    "What does {n} do for a living?",
    "What is the job of {n}?",
    "Name {n}'s job.",
    "What work does {n} do?",
    "Find the job of {n}.",
    "Which job does {n} have?",
    "Tell me the job of {n}.",
    "What is the job that {n} has?",
    "{n} has which job?",
    "Tell me what {n} does for a living.",
    "Tell me {n}'s job.",
    "What job does {n} have?",
)
EMAIL = (
    "What is the e-mail address?",
    "Find the e-mail address.",
    "Extract the e-mail.",
    "Give me the e-mail address.",
    "Copy the e-mail address from the text.",
    "Which e-mail address is in the text?",
    "E-mail address?",
    "Tell me the e-mail.",
    "Pull the e-mail address out of the text.",
    "Show me the e-mail address.",
    "What e-mail address do you see?",
    "Pull out the e-mail address.",
    "Tell me the e-mail address.",
)
DATE = (
    "What is the date?",
    "Find the date.",
    "Extract the date.",
    "Give me the date.",
    "Copy the date from the text.",
    "Which date is in the text?",
    "On which date?",
    "Tell me which date it is.",
    "Pull the date out of the text.",
    "Show me the date.",
    "What date do you see?",
    "Pull out the date.",
    "Tell me the date.",
)
PHONE = (
    "What is the phone number?",
    "Find the phone number.",
    "Extract the phone number.",
    "Give me the phone number.",
    "Copy the phone number from the text.",
    "Which phone number is in the text?",
    "Phone number?",
    "Tell me the number to call.",
    "Pull the phone number out of the text.",
    "Show me the phone number.",
    "What phone number do you see?",
    "Pull out the phone number.",
    "Tell me the phone number.",
)
WHO = (
    "Who lives in {c}?",
    "Which person lives in {c}?",
    "Name the person who lives in {c}.",
    "Who is from {c}?",
    "Find the person in {c}.",
    "Tell me who is from {c}.",
    "Who is it that comes from {c}?",
    "Tell me the person in {c}.",
    "Tell me who lives in {c}.",
    "Who is it that lives in {c}?",
)
AS_JSON = (
    "Extract {k} as JSON.",
    "Return {k} as JSON.",
    "Give me {k} as a JSON object.",
    "Write {k} as JSON.",
    "Answer with a JSON object that has {k}.",
    "Put {k} into JSON.",
    "Output JSON with {k}.",
    "I need a JSON object with {k}.",
    "Reply with {k} as JSON.",
    "A JSON object holding {k}, please.",
    "I need JSON holding {k}.",
    "Reply with a JSON object of {k}.",
    "I need {k} as JSON.",
    "Reply with JSON holding {k}.",
)
ISO_DATE = (
    "Write the date as YYYY-MM-DD.",
    "What is the date in the form YYYY-MM-DD?",
    "Give the date as YYYY-MM-DD.",
    "Extract the date in ISO format (YYYY-MM-DD).",
    "Convert the date to YYYY-MM-DD.",
    "Show the date like this: YYYY-MM-DD.",
    "Write the date like this: YYYY-MM-DD.",
    "Tell me the date as YYYY-MM-DD.",
    "Show me the date in ISO format (YYYY-MM-DD).",
    "Return the date like this: YYYY-MM-DD.",
    "Show me the date as YYYY-MM-DD.",
)
CONTACT = (
    "What is the {f} of {n}?",
    "Find the {f} of {n}.",
    "Give me the {f} for {n}.",
    "Extract the {f} of {n}.",
    "Which {f} belongs to {n}?",
    "Tell me the {f} of {n}.",
    "I need the {f} of {n}.",
)
CALLED = {"email": "e-mail address", "phone": "phone number", "date": "date"}
LIVES = ("{n} lives in {c}.", "{n} is from {c}.", "The home of {n} is {c}.", "{n} has a house in {c}.")
WORKS = ("{n} works as a {j}.", "{n} is a {j}.", "{n} has been a {j} for years.", "The {j} is called {n}.")
WRITES = (
    "{n} can be reached at {e}.",
    "Write to {n} at {e}.",
    "The e-mail of {n} is {e}.",
    "For questions ask {n}: {e}.",
    "Send the letter to {n}, {e}.",
)
CALLS = ("Call {n} at {p}.", "The phone number of {n} is {p}.", "{n} answers the phone at {p}.", "Ring {p} for {n}.")
MEETS = (
    "{n} was born on {d}.",
    "The party of {n} is on {d}.",
    "{n} will arrive on {d}.",
    "{n} signed the letter on {d}.",
    "The meeting with {n} is on {d}.",
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with one value of each field."""

    name: str
    city: str
    job: str
    email: str
    phone: str
    date: tuple[int, int, int]

    def says(self, draw: Draw, field: str) -> str:
        """A sentence that gives ``field`` away."""
        told = {"city": LIVES, "job": WORKS, "email": WRITES, "phone": CALLS, "date": MEETS}[field]
        return draw.choice(told).format(
            n=self.name, c=self.city, j=self.job, e=self.email, p=self.phone, d=written(self.date)
        )

    def value(self, field: str) -> str:
        """The value of ``field`` as the text has it."""
        return written(self.date) if field == "date" else str(getattr(self, field))


FIELDS = ("city", "job", "email", "phone", "date")
QUESTIONS = {"city": CITY, "job": JOB, "email": EMAIL, "phone": PHONE, "date": DATE}


def people(draw: Draw, count: int) -> list[Person]:
    """Different persons that share no value."""
    names, cities, jobs = draw.names(count), draw.cities(count), draw.mix(JOBS, count)
    return [
        Person(name, city, job, draw.email(name), draw.phone(), draw.day())
        for name, city, job in zip(names, cities, jobs, strict=True)
    ]


def joined(draw: Draw, sentences: list[str], question: str) -> str:
    """The text and the question, in either order."""
    text = " ".join(sentences)
    return draw.choice((f"{text} {question}", f"{text}\n{question}", f"{question}\n{text}", f"{question} Text: {text}"))


def one_field(draw: Draw) -> Task:
    """One person, two or three fields, one asked."""
    [person] = people(draw, 1)
    fields = draw.sample(FIELDS, draw.randint(1, 3))
    asked = fields[0]
    draw.shuffle(fields)
    question = draw.phrase(QUESTIONS[asked]).format(n=person.name)
    text = joined(draw, [person.says(draw, field) for field in fields], question)
    return Task(FAMILY, 1, ask(text), person.value(asked))


def two_people(draw: Draw) -> Task:
    """The same field of two or three persons; one is asked for, or who has a value."""
    known = people(draw, draw.randint(2, 3))
    field = draw.choice(("city", "job"))
    asked = draw.choice(known)
    if field == "city" and draw.random() < 0.4:
        question, answer = draw.phrase(WHO).format(c=asked.city), asked.name
    else:
        question, answer = draw.phrase(QUESTIONS[field]).format(n=asked.name), asked.value(field)
    return Task(FAMILY, 2, ask(joined(draw, [person.says(draw, field) for person in known], question)), answer)


def _json_task(draw: Draw, level: int, keys: int, extra: int) -> Task:
    [person] = people(draw, 1)
    fields = draw.sample(FIELDS, keys + extra)
    asked = fields[:keys]
    draw.shuffle(fields)
    listed = asked[0] if keys == 1 else ", ".join(asked[:-1]) + " and " + asked[-1]
    question = draw.phrase(AS_JSON).format(k=f"the {listed}")
    text = joined(draw, [person.says(draw, field) for field in fields], question)
    return Task(FAMILY, level, ask(text), json.dumps({field: person.value(field) for field in asked}))


def small_json(draw: Draw) -> Task:
    """One field as JSON."""
    return _json_task(draw, 2, 1, 1)


def large_json(draw: Draw) -> Task:
    """Two or three fields as JSON, one more in the text."""
    return _json_task(draw, 3, draw.randint(2, 3), 1)


def iso_date(draw: Draw) -> Task:
    """A written date in ISO 8601."""
    [person] = people(draw, 1)
    text = joined(draw, [person.says(draw, "date")], draw.phrase(ISO_DATE))
    return Task(FAMILY, 3, ask(text), iso(person.date))


def which_contact(draw: Draw) -> Task:
    """The e-mail, phone or date of one of two or three persons."""
    known = people(draw, draw.randint(2, 3))
    field, asked = draw.choice(("email", "phone", "date")), draw.choice(known)
    question = draw.phrase(CONTACT).format(f=CALLED[field], n=asked.name)
    return Task(FAMILY, 3, ask(joined(draw, [p.says(draw, field) for p in known], question)), asked.value(field))


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (one_field,),
    2: (two_people, small_json),
    3: (large_json, iso_date, which_contact),
}
