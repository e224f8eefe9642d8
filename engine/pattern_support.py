"""Decides which regular expressions structured output supports: those of Rust's regex crate, without look-around. Pure
functions."""

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
    """An open group of the pattern that is being read, or the pattern itself."""

    fresh: bool  # nothing that matches text comes before the group, so that ^ is allowed
    ended: bool = False  # one of its alternatives so far ends with $


class _Reader:
    """The state of reading a pattern from left to right. ``^`` is supported only where nothing precedes it, ``$`` only
    where nothing follows it. Each method reads one element, and returns whether it is supported at this place."""

    def __init__(self) -> None:
        self.open = [_Group(True)]
        self._fresh, self._ended, self._repeatable = True, False, False

    def atom(self) -> bool:
        """Reads an element that matches a character."""
        self._fresh, self._repeatable = False, True
        return not self._ended

    def begin(self) -> bool:
        """Reads the start of a group."""
        self.open.append(_Group(self._fresh))
        self._repeatable = False
        return not self._ended

    def end(self) -> bool:
        """Reads the end of a group."""
        group = self.open.pop()
        self._ended = self._ended or group.ended
        self._fresh, self._repeatable = False, True
        return bool(self.open)

    def alternative(self) -> bool:
        """Reads the bar between alternatives."""
        group = self.open[-1]
        group.ended = group.ended or self._ended
        self._fresh, self._ended, self._repeatable = group.fresh, False, False
        return True

    def anchor(self, start: bool) -> bool:
        """Reads an anchor: the start of the text, or, if not ``start``, its end."""
        self._repeatable = False
        self._ended = self._ended or not start
        return self._fresh or not start

    def repeat(self) -> bool:
        """Reads a quantifier."""
        return self._repeatable and not self._ended


def is_supported(pattern: str) -> bool:
    """Returns whether structured output supports the syntax of ``pattern``. Look-around, word boundaries and
    back-references are not supported, nor is an invalid pattern. A supported pattern may still be too large, or match
    nothing."""
    reader, place = _Reader(), 0
    while place < len(pattern):
        after = _read(reader, pattern, place)
        if after is None:
            return False
        place = after
    return len(reader.open) == 1


def _read(reader: _Reader, pattern: str, place: int) -> int | None:
    """Reads the element at ``place``. Returns the place of the next one, or None if the element is not supported."""
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
    """Reads the start of a group, or a group that only sets flags. Returns the place after it, or None if not
    supported."""
    found = _GROUP.match(pattern, place)
    if found is None or pattern.startswith("?", found.end()):
        return None
    return found.end() if found["end"] == ")" or reader.begin() else None


def _ordered(repeat: re.Match[str]) -> bool:
    """Returns whether a quantifier's minimum is at most its maximum, as far as it has both."""
    return not repeat["most"] or int(repeat["least"][:9]) <= int(repeat["most"][:9])


def _class_end(pattern: str, place: int) -> int | None:
    """Returns the place after the character class that begins at ``place``, or None if it is not closed or not
    supported. Classes may be nested."""
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
            place += pattern.startswith("]", place)  # a closing bracket right after the opening one is a character
        elif char == "]":
            depth -= 1
            if not depth:
                return None if _BAD_RANGE.search(pattern, began, place) else place
    return None
