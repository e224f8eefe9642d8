"""The words that the rules know, read once from ``words.json``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def word_lists() -> dict[str, Any]:
    """``kinds``: words of which one cannot stand for another, by the rule that looks for them. ``antonyms``: groups of
    words, each the opposite of the first one. ``negators``: words that deny. ``no_opposites``: words that begin like an
    opposite and are none."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
    return found
