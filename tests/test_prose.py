"""Docstrings, comments and documents say who does what: some words only hide it, and are not used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RIDDLES = ("so many", "told", "nobody", "whoever", "what it comes to", "everybody")
"""``told`` and the like have no subject, ``so many`` no number. Say which part of the program does it, and how many."""
RIDDLE = re.compile(r"\b(" + "|".join(RIDDLES) + r")\b(?!\()", re.IGNORECASE)  # a word before "(" is a function
PLAIN = [
    *sorted((ROOT / "router").rglob("*.py")),
    *sorted((ROOT / "cluster").rglob("*.py")),
    *(
        path
        for folder in ("", "scheduler", "kv", "decode")
        for path in sorted((ROOT / "engine" / folder).glob("*.py"))
        if path.stem not in ("tokenizer", "tokenizer_files", "token_bytes")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "README.md",
]


def riddles(text: str) -> Iterator[tuple[int, str]]:
    """The lines, from 1, that have such a word, and the word; also one that a line break parts."""
    for match in RIDDLE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[0]


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_is_plain(path: Path) -> None:
    found = [f"{path.relative_to(ROOT)}:{line}: {word}" for line, word in riddles(path.read_text(encoding="utf-8"))]

    assert not found, "\n".join(found)


def test_a_riddle_is_found_with_its_line() -> None:
    assert list(riddles("Tokens.\nHolds so many of them,\nas Whoever asks.")) == [(2, "so many"), (3, "Whoever")]
    assert not list(riddles("The engine holds 16 tokens per block; untold ones are none."))
