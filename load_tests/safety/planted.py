"""Answers with planted e-mail addresses, cards, keys and blocklisted phrases in disguise, and what a client may get."""

from __future__ import annotations

import json
import random
import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PHRASES = ("project nightfall", "copper lantern", "zorblax")
"""The blocklisted phrases: words that the filler does not have."""

FILLER = (
    "the river runs past a small stone house where Anna keeps bees and writes letters about weather bread music wörld "
    "café naïve 東京 été and the garden: it has twelve trees, three ponds; many count them! Why? Because it is so. "
    "“Quotes”, dashes — and\nlines\tare text, too 🎉"
)
WORDS = tuple(FILLER.split(" "))

LOOKALIKES = str.maketrans("aeopcxy", "\u0430\u0435\u043e\u0440\u0441\u0445\u0443")  # Cyrillic letters
BASE62 = string.ascii_letters + string.digits
MARK = re.compile(r"<[A-Z][A-Z0-9_]*>")


@dataclass(frozen=True, slots=True)
class Planted:
    """A planted text as the model writes it. ``kind`` is email, card, key or phrase. A phrase halts the answer.
    ``quoted``: it is a number in JSON, whose mark is a string."""

    text: str
    kind: str
    quoted: bool = False


Part = str | Planted


@dataclass(frozen=True, slots=True)
class PlantedText:
    """A text in parts."""

    parts: tuple[Part, ...]

    @property
    def whole(self) -> str:
        """The text as the model writes it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def planted(self) -> list[Planted]:
        """The planted texts."""
        return [part for part in self.parts if isinstance(part, Planted)]

    @property
    def halts(self) -> bool:
        """Whether the text has a phrase, so that it must end before it."""
        return any(isinstance(part, Planted) and part.kind == "phrase" for part in self.parts)

    def problem(self, received: str) -> str | None:
        """Returns what is wrong with what a client got; None: nothing. A text that halts may end anywhere before its
        phrase; all other filler must be there to the byte, and a mark in place of each planted text."""
        place = 0
        for part in self.parts:
            if isinstance(part, Planted):
                if part.kind == "phrase":
                    break
                mark = MARK.match(received, place + part.quoted)
                if mark is None:
                    return None if self.halts and place == len(received) else f"no mark for {part.kind}"
                place = mark.end() + part.quoted
                continue
            rest = received[place : place + len(part)]
            if rest != part:
                cut_off = self.halts and place + len(rest) == len(received) and part.startswith(rest)
                return None if cut_off else f"changed: {part!r} is {rest!r}"
            place += len(part)
        return None if place == len(received) else f"more than allowed: {received[place:]!r}"


class Planter:
    """Makes texts, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self, words: int, planted: int, halts: bool) -> PlantedText:
        """Returns a text of about ``words`` words with ``planted`` texts to be redacted, and a phrase if ``halts``."""
        kinds = [self._random.choice((email, card, key)) for _ in range(planted)] + [phrase] * halts
        self._random.shuffle(kinds)
        parts: list[Part] = [f"{self._filler(words // (len(kinds) + 1))} see "]
        for make in kinds:
            parts += make(self._random), f" and {self._filler(words // (len(kinds) + 1))} see "
        return PlantedText((*parts, "the end."))

    def arguments(self, words: int, planted: int, halts: bool) -> PlantedText:
        """Returns the arguments of a tool call, JSON with planted texts in its strings and one as a number."""
        ascii_only = self._random.random() < 0.5
        inner = self.text(words, planted, halts)
        digits = "".join(char for char in card(self._random).text if char.isdigit())
        return PlantedText(
            (
                '{"n": 12, "to": ["',
                *(self._in_json(part, ascii_only) for part in inner.parts),
                '", true], "card": ',
                Planted(digits, "card", quoted=True),
                ' , "last": "ok"}',
            )
        )

    def pieces(self, text: str, longest: int = 12) -> list[str]:
        """Returns the text cut at random."""
        pieces, place = [], 0
        while place < len(text):
            step = self._random.randint(1, longest)
            pieces.append(text[place : place + step])
            place += step
        return pieces

    def _filler(self, count: int) -> str:
        return " ".join(self._random.choice(WORDS) for _ in range(max(1, count)))

    def _in_json(self, part: Part, ascii_only: bool) -> Part:
        """Returns a part as it is written within a JSON string, a planted text with one character as an escape."""
        if isinstance(part, str):
            return json.dumps(part, ensure_ascii=ascii_only)[1:-1]
        at = self._random.randrange(len(part.text))
        before, char, after = part.text[:at], part.text[at], part.text[at + 1 :]
        escaped = f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]
        ends = (json.dumps(each, ensure_ascii=ascii_only)[1:-1] for each in (before, after))
        return Planted(escaped.join(ends), part.kind)


def email(draw: random.Random) -> Planted:
    """An e-mail address."""
    name = "".join(draw.choices(string.ascii_lowercase, k=draw.randint(3, 10)))
    return Planted(f"{name}.{draw.choice(('ada', 'kim'))}@{draw.choice(('example.org', 'mail.example.com'))}", "email")


def card(draw: random.Random) -> Planted:
    """The number of a credit card: a Visa number with a right check digit (ISO/IEC 7812), in one of three forms."""
    digits = [4, *(draw.randrange(10) for _ in range(14))]
    doubled = [digit if place % 2 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits)]
    number = "".join(map(str, [*digits, -sum(doubled) % 10]))
    groups = [number[at : at + 4] for at in range(0, 16, 4)]
    return Planted(draw.choice(("", " ", "-")).join(groups), "card")


def key(draw: random.Random) -> Planted:
    """A made-up key of GitHub or Amazon."""
    if draw.random() < 0.5:
        return Planted("ghp_" + "".join(draw.choices(BASE62, k=36)), "key")
    return Planted("AKIA" + "".join(draw.choices(string.ascii_uppercase + "234567", k=16)), "key")


def phrase(draw: random.Random) -> Planted:
    """A blocklisted phrase in disguise."""
    return Planted(draw.choice(DISGUISES)(draw.choice(PHRASES)), "phrase")


DISGUISES: Sequence[Callable[[str], str]] = (
    str,
    str.upper,
    lambda text: text.translate(LOOKALIKES),
    lambda text: "\u200b".join(text),  # zero-width spaces
    lambda text: "\u00ad".join(text),  # soft hyphens
    lambda text: " ".join(text.replace(" ", "")) if " " not in text else text.replace(" ", "\n"),
    lambda text: unicodedata.normalize("NFD", "".join(f"{char}\u0301" if char in "aeo" else char for char in text)),
    lambda text: "".join(chr(ord(char) + 0xFEE0) if "a" <= char <= "z" else char for char in text),  # full width
)
