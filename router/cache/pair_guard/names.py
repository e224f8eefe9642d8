"""Names: identifiers of programs, and capitalised words."""

from __future__ import annotations

import re
from typing import Final

from router.cache.pair_guard.reading import Reading, listed

IDENTIFIER: Final = re.compile(
    r"`([^`]+)`|(?<!\w)((?:__)?[A-Za-z]\w*_\w+(?:__)?|[a-z]+[A-Z]\w*|[A-Z]\w*[a-z]\w*[A-Z]\w*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z_]\w*(?=\(\)))(?!\w)"
)
"""``snake_case``, ``camelCase``, ``PascalCase``, ``dotted.names``, ``called()``, and what stands in backquotes."""

NAME: Final = re.compile(r"(?<=[\w,;:\"'(] )\(?[\"']?([A-Z][\w+#]*(?:[-.&][A-Z]\w*)*)")
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


def identifiers(text: Reading) -> frozenset[str]:
    """Returns the identifiers of a question."""
    return frozenset(match[1] or match[2] for match in IDENTIFIER.finditer(text.text))


def identifiers_differ(one: Reading, other: Reading) -> bool:
    """Tells whether both have identifiers, and each one that does not occur in the other, however it is spelt there."""
    first, second = _bare(one.text), _bare(other.text)
    return any(_bare(each) not in second for each in identifiers(one)) and any(
        _bare(each) not in first for each in identifiers(other)
    )


def _bare(text: str) -> str:
    """Returns the letters and digits of a text: "read_csv", "readCSV" and "read csv" are one."""
    return "".join(filter(str.isalnum, text.lower()))


def names(text: Reading) -> frozenset[str]:
    """Returns the capitalised words of a question that do not begin a sentence, lower-cased."""
    found = {match[1].lower().rstrip(".") for match in NAME.finditer(text.text)}
    return frozenset(SAME.get(name, name) for name in found - NO_NAMES)


def names_differ(one: Reading, other: Reading) -> bool:
    """Tells whether the two are alike but for a name: each has one that does not occur in the other, and the words in
    small letters are the same."""
    first, second = _absent(names(one), other), _absent(names(other), one)
    if not (first and second):
        return False
    return not (set(one.words) ^ set(other.words)) - first - second


def _absent(found: frozenset[str], text: Reading) -> set[str]:
    """The ones of which no word begins with the other's, or is its beginning: "China" and "Chinese" are one."""
    words = [SAME.get(word, word) for word in text.words]
    lowered = text.text.lower()
    return {
        each for each in found if each.lower() not in lowered and not any(_alike(each.lower(), word) for word in words)
    }


def _alike(one: str, other: str) -> bool:
    shared = min(len(one), len(other), 4)
    return shared >= 3 and one[:shared] == other[:shared]
