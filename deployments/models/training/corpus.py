"""What the embedded models learn from: public instruction data, and simple tasks with exact answers."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_CHARS = 900  # of one conversation: longer ones fill a context of a few hundred tokens with little to learn from

GREETINGS = ("Hello", "Hi", "Good morning", "Hey there", "Hello, who are you", "Hi, how are you")
NAMES = ("Ada", "Alan", "Grace", "Linus", "Edsger", "Barbara", "Donald", "Radia", "Ken", "Margaret", "Tim", "Frances")
CITIES = ("Paris", "Rome", "Cairo", "Lima", "Oslo", "Tokyo", "Delhi", "Quito", "Dublin", "Vienna", "Seoul", "Accra")
WORDS = ("apple", "river", "stone", "cloud", "tiger", "paper", "light", "music", "garden", "window", "silver", "market")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One question and its answer."""

    user: str
    assistant: str


def read_corpus(data: Path) -> Iterator[Conversation]:
    """The instruction data under ``data`` (corpus/gpteacher, corpus/gsm8k_train), short conversations only.

    Raises FileNotFoundError if the data is not there.
    """
    with gzip.open(data / "corpus" / "gpteacher.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            question = "\n".join(part for part in (row["instruction"], row.get("input", "")) if part)
            yield Conversation(question, row.get("response") or row.get("output", ""))
    with gzip.open(data / "corpus" / "gsm8k_train.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield Conversation(row["question"], row["answer"].replace("####", "The answer is"))


def make_tasks(count: int, seed: int) -> Iterator[Conversation]:
    """``count`` generated tasks with exact answers; the same ones for the same seed."""
    draw = random.Random(seed)
    for _ in range(count):
        yield draw.choice((_greeting, _arithmetic, _extraction, _case, _reverse, _count))(draw)


def mixture(data: Path, tasks: int, seed: int) -> list[Conversation]:
    """Everything to train on, shuffled by ``seed``."""
    kept = [c for c in read_corpus(data) if c.assistant.strip() and len(c.user) + len(c.assistant) <= MAX_CHARS]
    kept.extend(make_tasks(tasks, seed))
    random.Random(seed).shuffle(kept)
    return kept


def _greeting(draw: random.Random) -> Conversation:
    end = draw.choice(("!", ".", "?", ""))
    return Conversation(draw.choice(GREETINGS) + end, "Hello! I am Manta, a small language model. How can I help you?")


def _arithmetic(draw: random.Random) -> Conversation:
    a, b = draw.randint(0, 20), draw.randint(0, 20)
    if draw.random() < 0.5:
        return Conversation(f"What is {a} + {b}?", f"{a} + {b} = {a + b}")
    high, low = max(a, b), min(a, b)
    return Conversation(f"What is {high} - {low}?", f"{high} - {low} = {high - low}")


def _extraction(draw: random.Random) -> Conversation:
    name, city = draw.choice(NAMES), draw.choice(CITIES)
    fact = f"{name} lives in {city} and works as an engineer."
    if draw.random() < 0.5:
        return Conversation(f"{fact} Where does {name} live?", city)
    return Conversation(f"{fact} Who lives in {city}?", name)


def _case(draw: random.Random) -> Conversation:
    words = " ".join(draw.sample(WORDS, draw.randint(1, 3)))
    return Conversation(f"Write in capital letters: {words}", words.upper())


def _reverse(draw: random.Random) -> Conversation:
    words = draw.sample(WORDS, draw.randint(2, 4))
    return Conversation(f"Reverse the order of the words: {' '.join(words)}", " ".join(reversed(words)))


def _count(draw: random.Random) -> Conversation:
    words = draw.choices(WORDS, k=draw.randint(2, 8))
    return Conversation(f"How many words are here: {' '.join(words)}", str(len(words)))
