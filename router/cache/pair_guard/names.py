"""Names: identifiers of programs, and capitalised words."""

from __future__ import annotations

import re
from typing import Final

from router.cache.pair_guard.parsed_question import ParsedQuestion, listed

IDENTIFIER: Final = re.compile(
    r"`([^`]+)`|(?<!\w)("
    r"(?:__)?[A-Za-z]\w*_\w+(?:__)?|[a-z]+[A-Z]\w*|[A-Z]\w*[a-z]\w*[A-Z]\w*"
    r"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z_]\w*(?=\(\))"
    r")(?!\w)"
)
"""``snake_case``, ``camelCase``, ``PascalCase``, ``dotted.names``, ``called()``, and what stands in backquotes."""

RUN: Final = re.compile(r"[A-Z][\w+#]*(?:[-.&][A-Z]\w*)*(?: [A-Z][\w+#]*(?:[-.&][A-Z]\w*)*)*")
"""Capitalised words in a row."""

BEGINS: Final = re.compile(r"(?:^|[.?!])[\s\"'(]*$")
"""What stands before the first word of a sentence, which is capitalised in any case."""

MAX_NAME: Final = 4
"""Words of a name. A longer row is a title."""

SAME: Final = {
    "us": "usa",
    "u.s": "usa",
    "u.s.a": "usa",
    "america": "usa",
    "states": "usa",
    "american": "usa",
    "uk": "britain",
    "british": "britain",
    "england": "britain",
}
NO_NAMES: Final = listed("i i'm what how why is are can do does if the a an and or for in of to on")


def identifiers(text: ParsedQuestion) -> frozenset[str]:
    """Returns the identifiers of a question."""
    return frozenset(match[1] or match[2] for match in IDENTIFIER.finditer(text.text))


def identifiers_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether each question has an identifier that does not occur in the other, in any spelling."""
    first, second = _bare(one.text), _bare(other.text)
    return any(_bare(each) not in second for each in identifiers(one)) and any(
        _bare(each) not in first for each in identifiers(other)
    )


def _bare(text: str) -> str:
    """Returns the letters and digits of a text: "read_csv", "readCSV" and "read csv" are one."""
    return "".join(filter(str.isalnum, text.lower()))


def names(text: ParsedQuestion) -> dict[str, frozenset[str]]:
    """Returns the capitalised words of a question that do not begin a sentence, each with the words of its name.

    All are lower-cased. The first word of a sentence is not returned itself, but is one of the words of a name that it
    begins.
    """
    found: dict[str, frozenset[str]] = {}
    for match in RUN.finditer(text.text):
        run = match[0].lower().split()
        inner = run[1:] if BEGINS.search(text.text[: match.start()]) else run
        whole = frozenset(run) if len(run) <= MAX_NAME else frozenset()
        found.update({SAME.get(word, word): whole | {word} for word in inner if word not in NO_NAMES})
    return found


def names_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether the questions differ in a name alone: each has a name that does not occur in the other, and the
    words outside of these names are the same."""
    found = names(one), names(other)
    first, second = _absent(frozenset(found[0]), other), _absent(frozenset(found[1]), one)
    if not (first and second):
        return False
    inside = frozenset().union(*(found[0][name] for name in first), *(found[1][name] for name in second))
    return not (set(one.words) ^ set(other.words)) - first - second - inside


def _absent(found: frozenset[str], text: ParsedQuestion) -> set[str]:
    """The ones of which no word begins with the other's, or is its beginning: "China" and "Chinese" are one."""
    words = [SAME.get(word, word) for word in text.words]
    lowered = text.text.lower()
    return {
        each for each in found if each.lower() not in lowered and not any(_alike(each.lower(), word) for word in words)
    }


def _alike(one: str, other: str) -> bool:
    shared = min(len(one), len(other), 4)
    return shared >= 3 and one[:shared] == other[:shared]
