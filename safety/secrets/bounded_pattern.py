"""Makes patterns of other projects safe to run on hostile text, by two functions of the pattern.

``bounded`` gives each quantifier an upper bound. ``gate_of`` makes a cheap pattern of the first characters, so that the
expensive one is tried only where those match (``Recogniser.gate``).
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Sequence

import regex

from safety.patterns.recogniser import growing

MAX_REPEATS = 100  # of a character or class
MAX_GROUP_REPEATS = 8  # of a group
MAX_LENGTH = 1024  # characters; no pattern whose quantifiers are bounded matches more
MAX_GATE_PREFIXES = 256
GATE_DEPTH = 3  # characters

TOKEN = regex.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d+(?:,\d*)?\}|.", regex.DOTALL)
OPEN_REPEAT = regex.compile(r"\{(\d+),\}")


def bounded(pattern: str) -> str:
    """Returns ``pattern`` with a bound in place of each ``*``, ``+`` and ``{n,}``."""
    parts: list[str] = []
    previous = ""
    for token in TOKEN.findall(pattern):
        most = MAX_GROUP_REPEATS if previous == ")" else MAX_REPEATS
        is_quantifier = previous not in ("", "(", "|")
        if token == "*" and is_quantifier:
            parts.append(f"{{0,{most}}}")
        elif token == "+" and is_quantifier:
            parts.append(f"{{1,{most}}}")
        elif repeat := OPEN_REPEAT.fullmatch(token):
            parts.append(f"{{{repeat[1]},{int(repeat[1]) + most}}}")
        else:
            parts.append(token)
        previous = token
    return "".join(parts)


def gate_of(pattern: str) -> str:
    """Returns a pattern of ``re`` that matches the first characters of any match of ``pattern``.

    These characters are found by partial matching: a string that cannot begin a match is not even part of one.
    """
    grows, ends = growing(pattern), regex.compile(pattern)
    whole: list[str] = []
    prefixes = [""]
    for _ in range(GATE_DEPTH):
        longer = [
            prefix + character
            for prefix in prefixes
            for character in string.printable
            if grows.match(prefix + character, partial=True)
        ]
        if len(longer) > MAX_GATE_PREFIXES:
            break
        whole += [prefix for prefix in longer if ends.fullmatch(prefix)]
        prefixes = longer
    return tree([*whole, *prefixes])


def tree(prefixes: Sequence[str]) -> str:
    r"""Returns a pattern that matches any of ``prefixes``, or the beginning of one at the end of the text.

    ``[aA](?:\Z|[b])`` for ``ab`` and ``Ab``.
    """
    rest: dict[str, list[str]] = defaultdict(list)
    for prefix in prefixes:
        rest[prefix[:1]].append(prefix[1:])
    alike: dict[str, list[str]] = defaultdict(list)
    for first, tails in rest.items():
        alike[f"(?:\\Z|{tree(tails)})" if all(tails) else ""].append(first)
    return "|".join(f"[{''.join(map(escaped, firsts))}]{tails}" for tails, firsts in alike.items())


def escaped(character: str) -> str:
    """Returns ``character`` escaped for a character class."""
    return character if character.isalnum() else f"\\x{ord(character):02x}"
