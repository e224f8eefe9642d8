"""Generated documents: one relevant passage among fifty of the same kind, each about a made-up place."""

from __future__ import annotations

import random
from dataclasses import dataclass

SYLLABLES = ("bar", "dal", "ken", "lor", "mir", "nas", "ot", "pel", "quin", "ras", "sel", "tor", "ven", "wex", "yor")
TOPICS = {
    "library": ("The library keeps {n} volumes of maps.", "How many volumes of maps are kept in {place}?"),
    "bridge": ("The bridge was last repaired in {n}.", "When was the bridge of {place} repaired the last time?"),
    "school": ("Its school teaches {n} pupils.", "How many pupils go to school in {place}?"),
    "market": ("The market opens on {n} days of the year.", "On how many days does the market in {place} open?"),
    "mill": ("The mill grinds {n} tonnes of rye.", "How much rye is ground by the mill of {place}?"),
}
FILLERS = (
    "The houses stand along one street.",
    "Visitors come in summer, mostly by train.",
    "A brook runs past the church and the green.",
    "The council meets in the old town hall.",
    "There has been a weekly paper since the war.",
    "Its people work in forestry and on small farms.",
    "Winters are long, and the snow stays until April.",
    "A path leads up the hill to a stone tower.",
)
SENTENCES = 12  # of a passage


@dataclass(frozen=True, slots=True)
class PlantedCase:
    """A question, fifty texts, the place of the one that answers it, and the sentence with the answer."""

    question: str
    texts: tuple[str, ...]
    relevant: int
    fact: str


def planted_case(seed: int, documents: int = 50) -> PlantedCase:
    """Returns a case. All texts are about places; half of the others have the topic of the question, and one is about
    the place of the question, with another topic."""
    generator = random.Random(seed)
    topic = generator.choice(list(TOPICS))
    other = generator.choice([each for each in TOPICS if each != topic])
    statement, question = TOPICS[topic]
    place = _place(generator)
    fact = statement.format(n=generator.randint(20, 9000))
    texts = [_text(generator, place, fact), _text(generator, place, _statement(generator, other))]
    for number in range(documents - 2):
        about = topic if number % 2 else generator.choice(list(TOPICS))
        texts.append(_text(generator, _place(generator), _statement(generator, about)))
    order = generator.sample(range(documents), documents)
    return PlantedCase(question.format(place=place), tuple(texts[place] for place in order), order.index(0), fact)


def _place(generator: random.Random) -> str:
    return "".join(generator.sample(SYLLABLES, 3)).capitalize()


def _statement(generator: random.Random, topic: str) -> str:
    return TOPICS[topic][0].format(n=generator.randint(20, 9000))


def _text(generator: random.Random, place: str, fact: str) -> str:
    """Returns a text that names its place at the beginning, and has the fact anywhere behind."""
    sentences = [generator.choice(FILLERS) for _ in range(SENTENCES - 2)]
    sentences.insert(generator.randint(0, len(sentences)), fact)
    return " ".join([f"{place} is a village in the north.", *sentences])
