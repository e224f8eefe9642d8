"""Instructions about the form of an answer that a program can see, most of it Markdown."""

from __future__ import annotations

import json
import re

CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
BULLET = re.compile(r"^[^\S\n]*[*-][^\S\n]+(?=[^\n]*\w)", re.MULTILINE)
HIGHLIGHT = re.compile(r"\*\*(?=[^\n*]*\w)[^\n*]+\*\*|\*(?=[^\n*]*\w)[^\n*]+\*")
TITLE = re.compile(r"<<[^\n<>]*\w[^\n<>]*>>")
FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)\s*```", re.IGNORECASE | re.DOTALL)


def constrained_response(answer: str) -> bool:
    """One, and only one, of the three answers is given; more may be said around it."""
    return sum(choice in answer for choice in CHOICES) == 1


def number_bullet_lists(answer: str, *, num_bullets: int) -> bool:
    """Exactly ``num_bullets`` lines that begin with "* " or "- " and have a word."""
    return len(BULLET.findall(answer)) == num_bullets


def number_highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    """At least ``num_highlights`` stretches of a line, with a word in them, between single or double asterisks. The
    asterisk of a bullet is none of these."""
    return len(HIGHLIGHT.findall(BULLET.sub("", answer))) >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least ``num_sections`` sections, each marked by the word as written and a number of its own: "SECTION 1"."""
    numbers = re.findall(rf"(?<!\w){re.escape(section_spliter)}[^\S\n]?(\d+)", answer)
    return len(set(numbers)) >= num_sections


def title(answer: str) -> bool:
    """A title in double angular brackets, within a line: <<poem of joy>>."""
    return TITLE.search(answer) is not None


def json_format(answer: str) -> bool:
    """The whole answer is a JSON object or array, or a fenced block of one."""
    fenced = FENCE.fullmatch(answer.strip())
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):  # no JSON, or deeper than any answer's
        return False
    return isinstance(value, dict | list)
