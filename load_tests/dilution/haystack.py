"""Notes with one planted fact at a chosen depth. The same seed always gives the same notes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from engine.api import Conversation, Message

NAMES = ("Arjun", "Mira", "Tomas", "Lena", "Oskar", "Nadia", "Pavel", "Ines", "Hugo", "Salma", "Bruno", "Yuki", "Farid")
PLACES = ("harbour", "library", "market", "station", "museum", "garden", "bakery", "school", "bridge", "workshop")
MONTHS = ("January", "March", "May", "June", "August", "October", "December")
FILLERS = (
    "The party of {name} is on {day} {month} {year}.",
    "{name} walked to the {place} and came back before noon.",
    "The {place} was closed for {day} days in {month} {year}.",
    "{name} paints the door of the {place} every {month}.",
    "It rained on the {place}, and {name} stayed at home.",
    "{name} has read {day} books about the {place}.",
    "The train to the {place} left {day} minutes late.",
)
FACT = "{name} answers the phone at {number}."
QUESTION = "Tell me the phone number of {name}."
SENTENCES_PER_PARAGRAPH = 6

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Planted:
    """Notes, a question about them and its answer. ``depth`` is between 0, the beginning, and 1."""

    notes: str
    question: str
    answer: str
    depth: float

    @property
    def conversation(self) -> Conversation:
        """The notes in a first turn, and the question in a second."""
        turns = (("user", f"Here are my notes.\n\n{self.notes}"), ("assistant", "Noted."), ("user", self.question))
        return Conversation(tuple(Message(*turn) for turn in turns))


def plant(seed: int, tokens: int, depth: float, count: CountTokens) -> Planted:
    """Returns notes of about ``tokens`` tokens, as ``count`` counts them, with a fact at ``depth``."""
    draw = random.Random(f"{seed}/{tokens}/{depth}")
    who = draw.choice(NAMES)
    number = f"{draw.randrange(200, 999)}-{draw.randrange(1000, 9999)}"
    others = [name for name in NAMES if name != who]
    sentences = [_filler(draw, others) for _ in range(8)]
    per_sentence = count(" ".join(sentences)) / len(sentences)
    sentences += [_filler(draw, others) for _ in range(max(0, round(tokens / per_sentence) - len(sentences) - 1))]
    sentences.insert(round(depth * len(sentences)), FACT.format(name=who, number=number))
    step = SENTENCES_PER_PARAGRAPH
    paragraphs = [" ".join(sentences[at : at + step]) for at in range(0, len(sentences), step)]
    return Planted("\n\n".join(paragraphs), QUESTION.format(name=who), number, depth)


def _filler(draw: random.Random, names: list[str]) -> str:
    return draw.choice(FILLERS).format(
        name=draw.choice(names),
        place=draw.choice(PLACES),
        day=draw.randrange(2, 28),
        month=draw.choice(MONTHS),
        year=draw.randrange(1990, 2026),
    )
