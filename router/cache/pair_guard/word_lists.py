"""The word lists of the pair guard's rules, read once from ``words.json``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def word_lists() -> dict[str, Any]:
    """Returns the word lists by name. ``kinds``: groups of words that exclude each other, by the rule that uses them.
    ``antonyms``: groups of words, of which each further one is the opposite of the first. ``negators``: negating words.
    ``no_opposites``: words that begin with a negating prefix without being an opposite. ``english``: common words of
    English; ``foreign``: those of other languages that are none of English."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
    return found
