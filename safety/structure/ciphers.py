"""Texts in letters that stand for others: rot13, reversed text, leetspeak, spaced-out letters. Pure.

A stretch of words counts if its words are common ones after decoding and are not before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from safety.structure.decoded import Decoded, Encoding
from safety.structure.windows import with_context
from safety.text.common_words import COMMON_WORDS

_WORD = re.compile(r"[A-Za-z]{1,32}")
_LEET_WORD = re.compile(r"[A-Za-z0-9@$]{2,32}")
_LEET = (str.maketrans("0134578@$", "oieastbas"), str.maketrans("0134578@$", "oleastbas"))
_SPACED = re.compile(r"(?<!\w)[^\W_](?:[ .\-_*/|]{1,3}[^\W_]){4,}(?!\w)")
_MIN_SCORE = 6.0
_MIN_WORDS = 3
"""Different common words in a stretch."""
_MIN_LEET_LETTERS = 6
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_ROTATED = str.maketrans(
    _ALPHABET + _ALPHABET.upper(),
    _ALPHABET[13:] + _ALPHABET[:13] + (_ALPHABET[13:] + _ALPHABET[:13]).upper(),
)


@dataclass(frozen=True, slots=True)
class _Cipher:
    """``encoded``: common words as the cipher writes them, without those that are common words so too. ``scores``: of
    such words above 0, of common words below, by length; a word that is neither has ``_UNKNOWN``."""

    encoding: Encoding
    decode: Callable[[str], str]
    encoded: frozenset[str]
    scores: Mapping[str, float]


_UNKNOWN = -0.5


def _cipher(encoding: Encoding, decode: Callable[[str], str]) -> _Cipher:
    """Each of these ciphers is its own inverse."""
    encoded = {decode(word) for word in COMMON_WORDS}
    weight = {word: 2.0 if len(word) > 2 else 0.5 for word in encoded | COMMON_WORDS}
    scores = {word: weight[word] * ((word in encoded) - (word in COMMON_WORDS)) for word in weight}
    return _Cipher(encoding, decode, frozenset(encoded - COMMON_WORDS), scores)


_CIPHERS = (
    _cipher(Encoding.ROT13, lambda text: text.translate(_ROTATED)),
    _cipher(Encoding.REVERSED, lambda text: text[::-1]),
)


def decode_ciphers(text: str) -> Iterator[Decoded]:
    """Yields the texts that the passage carries in other letters."""
    words = set(_WORD.findall(text.lower()))
    for cipher in _CIPHERS:
        if len(words & cipher.encoded) >= _MIN_WORDS:
            yield from _stretches(text, cipher)
    yield from _leet(text)
    yield from _spaced(text)


def _stretches(text: str, cipher: _Cipher) -> Iterator[Decoded]:
    """The stretches with the highest sum of scores (Kadane), from their first encoded word to their last."""
    total, best, known = 0.0, 0.0, set[str]()
    first, last = 0, 0
    for match in _WORD.finditer(text):
        word = match[0].lower()
        total += cipher.scores.get(word, _UNKNOWN)
        if total <= 0 or total < best - _MIN_SCORE:
            yield from _stretch(text[first:last], first, best, known, cipher)
            total, best, known = 0.0, 0.0, set()
        elif word in cipher.encoded:
            first = first if known else match.start()
            known.add(word)
            if total > best:
                best, last = total, match.end()
    yield from _stretch(text[first:last], first, best, known, cipher)


def _stretch(text: str, start: int, score: float, known: set[str], cipher: _Cipher) -> Iterator[Decoded]:
    if score >= _MIN_SCORE and len(known) >= _MIN_WORDS:
        yield Decoded(cipher.decode(text), start, start + len(text), (cipher.encoding,))


def _leet(text: str) -> Iterator[Decoded]:
    words = {word: _leet_word(word.lower()) for word in set(_LEET_WORD.findall(text))}
    found = {plain for plain in words.values() if plain}
    if sum(map(len, found)) >= _MIN_LEET_LETTERS:
        changes = {match.span(): plain for match in _LEET_WORD.finditer(text) if (plain := words[match[0]])}
        yield with_context(text, changes, Encoding.LEET)


def _leet_word(word: str) -> str:
    """Returns the common word of three letters or more that this one spells; empty if it spells none."""
    if word.isalpha() or word.isdigit():
        return ""
    for table in _LEET:
        plain = word.translate(table)
        if len(plain) > 2 and plain in COMMON_WORDS:
            return plain
    return ""


def _spaced(text: str) -> Iterator[Decoded]:
    changes = {}
    for match in _SPACED.finditer(text):
        gap = len(match[0]) - len(match[0][1:].lstrip(" .-_*/|")) - 1  # between the first two letters
        words = re.sub(rf"[ .\-_*/|]{{{gap + 1},}}", "\0", match[0])
        plain = re.sub(r"[ .\-_*/|]", "", words).replace("\0", " ")
        if sum(len(word) for word in COMMON_WORDS if len(word) > 4 and word in plain.lower()) >= 5:
            changes[match.span()] = plain
    if changes:
        yield with_context(text, changes, Encoding.SPACED)
