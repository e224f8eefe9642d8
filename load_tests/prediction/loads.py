"""The loads: when requests come, how long their prompts and answers are, and what they share. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from engine.api import Priority

WORDS = (
    *("the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "as", "with", "they", "at", "be"),
    *("this", "from", "have", "or", "by", "one", "had", "not", "but", "what", "all", "were", "when", "we", "there"),
    *(
        "which",
        "their",
        "said",
        "if",
        "do",
        "will",
        "each",
        "about",
        "how",
        "up",
        "out",
        "then",
        "many",
        "some",
        "these",
    ),
    *("other", "into", "has", "more", "two", "like", "see", "time", "could", "no", "make", "than", "first", "been"),
)


@dataclass(frozen=True, slots=True)
class Load:
    """An open loop: requests come at ``rate`` per second, by chance, whatever became of those before.

    Lengths are in words, uniform between two bounds. ``shared`` prefixes of ``prefix_words`` are drawn by chance.
    """

    rate: float
    prompt_words: tuple[int, int]
    answer_tokens: tuple[int, int]
    shared: int = 0
    prefix_words: int = 0
    batch_share: float = 0.0  # of requests of the class batch


LOADS = {
    # Which the predictor was made with:
    "mixed": Load(2.0, (10, 400), (5, 60), shared=4, prefix_words=100),
    # Which it was not:
    "chat": Load(6.0, (8, 80), (10, 80)),
    "documents": Load(2.0, (50, 450), (5, 40), shared=3, prefix_words=300),
    "classes": Load(2.5, (10, 300), (5, 40), batch_share=0.4),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes ``at`` seconds after the start."""

    at: float
    prompt: str
    answer_tokens: int
    priority: Priority


def arrivals(load: Load, seconds: float, seed: int) -> Iterator[Arrival]:
    """Yields the requests of ``seconds`` seconds, in order."""
    draw = random.Random(seed)
    prefixes = [_text(draw, load.prefix_words) for _ in range(load.shared)]
    at = draw.expovariate(load.rate)
    while at < seconds:
        prefix = draw.choice(prefixes) if prefixes else ""
        prompt = f"{prefix} {_text(draw, draw.randint(*load.prompt_words))}"
        priority = Priority.BATCH if draw.random() < load.batch_share else Priority.STANDARD
        yield Arrival(at, prompt, draw.randint(*load.answer_tokens), priority)
        at += draw.expovariate(load.rate)


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))
