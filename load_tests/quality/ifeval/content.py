"""Instructions about parts that an answer has."""

from __future__ import annotations

import re

PLACEHOLDER = re.compile(r"\[[^\[\]\n]*[^\[\]\s][^\[\]\n]*\]")


def number_placeholders(answer: str, *, num_placeholders: int) -> bool:
    """At least ``num_placeholders`` placeholders in square brackets, such as [address], within a line each."""
    return len(PLACEHOLDER.findall(answer)) >= num_placeholders


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """A postscript: the marker, then at least a word. Capitals, and spaces and stops within the marker, are free."""
    letters = re.findall(r"\w", postscript_marker)
    marker = r"\.?\s?".join(map(re.escape, letters))
    return re.search(rf"(?<!\w)(?<!\w\.){marker}(?!\w)\W*\w", answer, re.IGNORECASE) is not None
