"""Hand-written texts that judge the classifier. No training reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deployments.models.training.safety.example import Example, benign, marked
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL, INJECTION

FOLDER: Final = Path(__file__).with_name("held_out_texts")

SETS: Final = {"requests": "harmful", "injections": "injection", "content": "content", "messages": "content"}
"""What each set asks for. ``requests``: short ones, each harmful word in harmless ones too. ``injections``: beside
harmless requests and documents with their words. ``content``: posts, stories and other texts for moderation, beside
harmless ones on the same topics. ``messages``: of some hundred words, in which a sentence is a harmful request or an
injection, and harmless ones on the same topics."""

MARKS: Final[dict[str, dict[str, float]]] = {
    "harmful": {HARMFUL: 1.0},
    "injection": {INJECTION: 1.0},
    "hate": {"hate": 1.0},
    "harassment": {"harassment": 1.0},
    "threat": {"harassment/threatening": 1.0, "violence": 1.0},
    "violence": {"violence": 1.0},
    "self-harm": {"self-harm": 1.0},
    "sexual": {"sexual": 1.0},
}
"""What is known of a text, by its kind."""


def held_out(name: str) -> list[Example]:
    """Returns the texts of the set ``name``. Raises OSError."""
    rows = map(json.loads, (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return [_example(row["kind"], row["text"], f"held_out:{name}") for row in rows]


def _example(kind: str, text: str, source: str) -> Example:
    """Returns an example with the labels of its kind. Of the other categories nothing is known."""
    if kind == "harmless":
        return benign(text, source)
    unknown = (HARMFUL, *CATEGORIES) if kind == "injection" else CATEGORIES
    return marked(text, source, MARKS[kind], unknown)
