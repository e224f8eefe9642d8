"""Hand-written texts that judge and that no training reads. They were written apart from the training texts."""

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


def held_out(name: str) -> list[Example]:
    """Returns the texts of a set. Raises OSError."""
    rows = map(json.loads, (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return [_example(row["kind"], row["text"], f"held_out:{name}") for row in rows]


def _example(kind: str, text: str, source: str) -> Example:
    if kind == "harmless":
        return benign(text, source)
    if kind == "injection":
        return marked(text, source, {INJECTION: 1.0}, (HARMFUL, *CATEGORIES))
    return marked(text, source, {HARMFUL: 1.0}, CATEGORIES)
