"""Which regular expressions structured outputs can follow: those of Rust's regex crate, without look-around. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEX = r"x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[xuU]\{[0-9a-fA-F]+\}"
_CHARACTER = re.compile(rf"\\(?:{_HEX}|[pP](?:[A-Z]|\{{[^}}]+\}})|[dDsSwWtnrfva]|[!-/:;=?@\[-`{{-~ ])", re.ASCII)
_GROUP = re.compile(r"\((?:\?(?::|P?<[A-Za-z_]\w*>|(?P<flags>[isuUxR]*(?:-[imsuUxR]+)?)(?P<end>[:)])))?", re.ASCII)
_REPEAT = re.compile(r"(?:[*+?]|\{(?P<least>\d+)(?P<more>,(?P<most>\d*))?\})\??", re.ASCII)
_BAD_RANGE = re.compile(r"[^\\\[^]-\\[dDsSwWpP]")


@dataclass(slots=True)
class _Group:
    """A group that is open, or the pattern itself."""

    fresh: bool  # whether nothing comes before it
    ended: bool = False  # whether one of its alternatives so far ends with $


class _Reader:
    """Reads one pattern; ``^`` may come only where nothing does before it, ``$`` only where nothing does after it."""

    def __init__(self) -> None:
        self.open = [_Group(True)]
        self._fresh, self._ended, self._repeatable = True, False, False

    def atom(self) -> bool:
        """Something that matches a character."""
        self._fresh, self._repeatable = False, True
        return not self._ended

    def begin(self) -> bool:
        """A group."""
        self.open.append(_Group(self._fresh))
        self._repeatable = False
        return not self._ended

    def end(self) -> bool:
        """The end of a group."""
        group = self.open.pop()
        self._ended = self._ended or group.ended
        self._fresh, self._repeatable = False, True
        return bool(self.open)

    def alternative(self) -> bool:
        """The bar between alternatives."""
        group = self.open[-1]
        group.ended = group.ended or self._ended
        self._fresh, self._ended, self._repeatable = group.fresh, False, False
        return True

    def anchor(self, start: bool) -> bool:
        """The start or the end of the text."""
        self._repeatable = False
        self._ended = self._ended or not start
        return self._fresh or not start

    def repeat(self) -> bool:
        """A quantifier."""
        return self._repeatable and not self._ended


def is_supported(pattern: str) -> bool:
    """Whether structured outputs can follow a pattern, as far as its syntax says: neither look-around, word boundaries
    and back-references, nor what is no regular expression. It may still be too large, or match nothing."""
    reader, place = _Reader(), 0
    while place < len(pattern):
        after = _read(reader, pattern, place)
        if after is None:
            return False
        place = after
    return len(reader.open) == 1


def _read(reader: _Reader, pattern: str, place: int) -> int | None:
    """Reads the piece at ``place``. Returns where the next one begins, None if this one is not supported."""
    char, after = pattern[place], place + 1
    if char == "\\" and pattern[after : after + 1] in ("A", "z"):
        return after + 1 if reader.anchor(pattern[after] == "A") else None
    if char in "^$":
        return after if reader.anchor(char == "^") else None
    if char == "(":
        return _open(reader, pattern, place)
    if char == ")":
        return after if reader.end() else None
    if char == "|":
        return after if reader.alternative() else None
    if char in "*+?{":
        found = _REPEAT.match(pattern, place)
        return found.end() if found and _ordered(found) and reader.repeat() else None
    end: int | None = after
    if char == "\\":
        escape = _CHARACTER.match(pattern, place)
        end = escape.end() if escape else None
    elif char == "[":
        end = _class_end(pattern, place)
    return end if reader.atom() else None


def _open(reader: _Reader, pattern: str, place: int) -> int | None:
    """The start of a group, or flags."""
    found = _GROUP.match(pattern, place)
    if found is None or pattern.startswith("?", found.end()):
        return None
    return found.end() if found["end"] == ")" or reader.begin() else None


def _ordered(repeat: re.Match[str]) -> bool:
    """Whether a quantifier's limits are in order, if it has two."""
    return not repeat["most"] or int(repeat["least"][:9]) <= int(repeat["most"][:9])


def _class_end(pattern: str, place: int) -> int | None:
    """Where a class of characters ends that begins at ``place``; None if it does not. Classes may be nested."""
    began, depth = place, 0
    while place < len(pattern):
        char = pattern[place]
        if char == "\\":
            escape = _CHARACTER.match(pattern, place)
            if escape is None:
                return None
            place = escape.end()
            continue
        place += 1
        if char == "[":
            depth += 1
            place += pattern.startswith("^", place)
            place += pattern.startswith("]", place)  # a first bracket is a character
        elif char == "]":
            depth -= 1
            if not depth:
                return None if _BAD_RANGE.search(pattern, began, place) else place
    return None
