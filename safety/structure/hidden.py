"""Decodes texts in invisible or look-alike characters. Pure.

Tag characters and variation selectors as bytes: https://embracethered.com (ASCII smuggling), Unicode 16, 23.4, 23.9.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from safety.structure.decoded import Decoded, Encoding
from safety.structure.readable import readable_text
from safety.structure.windows import with_context
from safety.text.confusables import latin_image
from safety.text.folding import fold

_FLAG = "\U0001f3f4"
_TAG = "[\U000e0020-\U000e007e]"
_REGION = "[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}"
_TAGS = re.compile(f"{_FLAG}({_REGION})(?!{_TAG})|\\A({_REGION})(?=\U000e007f)|{_TAG}+")
"""A black flag with the tags that name its region (Unicode Technical Standard 51, emoji tag sequences), of which the
text may have only the beginning or the end; or other tags."""
_DRAWN = {"".join(chr(0xE0000 + ord(letter)) for letter in region) for region in ("gbeng", "gbsct", "gbwls")}
"""The regions whose flags devices draw: England, Scotland, Wales."""
_MAX_OTHERS = 2
"""The other regions that a text may have, of which a slice may cut two. More could spell a text, a word to a flag."""
_MIN_TAGS = 4
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_BITS = re.compile("[\u200b-\u200d\u2060\u2062-\u2064\ufeff]{32,}")
_IN_WORD = re.compile(
    "(?<=[A-Za-z])[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\U000e0000-\U000e007f]{1,64}(?=[A-Za-z])"
)
_WORD = re.compile(r"[^\W\d_]+")
_MIN_WORD = 4


def decode_hidden(text: str) -> Iterator[Decoded]:
    """Yields the texts that are encoded in ``text`` in invisible characters, and ``text`` itself without invisible and
    look-alike characters."""
    if text.isascii():
        return
    yield from _tags(text)
    for match in _SELECTORS.finditer(text):
        plain = readable_text(bytes(_selector_byte(char) for char in match[0]))
        if plain:
            yield Decoded(plain, *match.span(), (Encoding.VARIATION_SELECTORS,))
    yield from _bits(text)
    split = {match.span(): "" for match in _IN_WORD.finditer(text)}
    if split:
        yield with_context(text, split, Encoding.ZERO_WIDTH)
    yield from _disguised(text)


def _tags(text: str) -> Iterator[Decoded]:
    """All tags that name no region, as one text: it may be spread over the text, a few tags behind each letter."""
    runs = list(_TAGS.finditer(text))
    others = {run[1] or run[2] for run in runs} - _DRAWN - {None}
    if len(others) <= _MAX_OTHERS:
        runs = [run for run in runs if run.lastindex is None]
    plain = "".join(chr(ord(char) - 0xE0000) for run in runs for char in run[0] if char != _FLAG)
    if len(plain) >= _MIN_TAGS:
        yield Decoded(plain, runs[0].start(), runs[-1].end(), (Encoding.TAGS,))


def _disguised(text: str) -> Iterator[Decoded]:
    """If a disguised word is too long for a unit, a formula or the name of a variable, then all words that look Latin
    are written so."""
    words = [match for match in _WORD.finditer(text) if not match[0].isascii()]
    if any(len(word[0]) >= _MIN_WORD and _is_disguised(word[0]) for word in words):
        plain = {word.span(): "".join(map(fold, word[0])) for word in words}
        changes = {span: word for span, word in plain.items() if word.isascii()}
        yield with_context(text, changes, Encoding.HOMOGLYPHS)


def _selector_byte(char: str) -> int:
    code = ord(char)
    return code - 0xFE00 if code < 0xFE10 else code - 0xE0100 + 16


def _bits(text: str) -> Iterator[Decoded]:
    """Two invisible characters as the bits of bytes, either of them as 1."""
    for match in _BITS.finditer(text):
        signs = sorted(set(match[0]))
        for one in signs if len(signs) == 2 else ():
            bits = "".join("1" if char == one else "0" for char in match[0])
            plain = readable_text(int(bits[: len(bits) // 8 * 8], 2).to_bytes(len(bits) // 8, "big"))
            if plain:
                yield Decoded(plain, *match.span(), (Encoding.ZERO_WIDTH_BITS,))
                break


def _is_disguised(word: str) -> bool:
    """Whether a word mixes Latin letters with look-alikes of other scripts, or is Latin in letters made for other uses
    such as mathematics."""
    if word.isascii():
        return False
    foreign = [char for char in word if not char.isascii()]
    if len(foreign) == len(word):
        return unicodedata.normalize("NFKC", word).isascii()
    return any(
        not unicodedata.name(char, "").startswith("LATIN") and latin_image(char.casefold()[:1]) for char in foreign
    ) and all(char.isascii() or fold(char).isascii() for char in word)
