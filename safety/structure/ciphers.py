"""Decodes texts whose letters are replaced or moved: rot13, atbash, reversed text, leetspeak, spaced-out letters. Pure.

A run of words counts if its words are common English words after decoding and not before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from safety.structure.bigrams import english_share
from safety.structure.decoded import Decoded, Encoding
from safety.structure.windows import with_context
from safety.text.common_words import COMMON_WORDS

_WORD = re.compile(r"(?<![\w+/])[A-Za-z]{1,32}(?![\w+/])")  # not within base64
_LEET_WORD = re.compile(r"[A-Za-z0-9@$]{1,32}")
_LEET = (str.maketrans("0134578@$", "oieastbas"), str.maketrans("0134578@$", "oleastbas"))
_SPACED = re.compile(r"(?<!\w)[^\W_](?:[ .\-_*/|]{1,3}[^\W_]){4,}")
"""It has no condition on what follows: to try shorter runs instead, from each letter, would take quadratic time."""
_SIGNS = " .-_*/|"
_MIN_SPACED = 5  # letters
_MIN_SCORE = 5.0
_MIN_WORDS = 2
"""Different common words in a stretch."""
_MIN_LEET_LETTERS = 6
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_ROTATED = str.maketrans(
    _ALPHABET + _ALPHABET.upper(),
    _ALPHABET[13:] + _ALPHABET[:13] + (_ALPHABET[13:] + _ALPHABET[:13]).upper(),
)
_MIRRORED = str.maketrans(_ALPHABET + _ALPHABET.upper(), _ALPHABET[::-1] + _ALPHABET[::-1].upper())


@dataclass(frozen=True, slots=True)
class _Cipher:
    """``encoded``: common words as the cipher writes them, without those that are common words so too. ``scores``: of
    such words above 0, of common words below, by length. A word that is neither counts by its pairs of letters."""

    encoding: Encoding
    decode: Callable[[str], str]
    encoded: frozenset[str]
    scores: Mapping[str, float]


def _cipher(encoding: Encoding, decode: Callable[[str], str]) -> _Cipher:
    """Each of these ciphers is its own inverse."""
    encoded = {decode(word) for word in COMMON_WORDS}
    weight = {word: 2.0 if len(word) > 2 else 0.5 for word in encoded | COMMON_WORDS}
    scores = {word: weight[word] * ((word in encoded) - (word in COMMON_WORDS)) for word in weight}
    return _Cipher(encoding, decode, frozenset(encoded - COMMON_WORDS), scores)


_CIPHERS = (
    _cipher(Encoding.ROT13, lambda text: text.translate(_ROTATED)),
    _cipher(Encoding.ATBASH, lambda text: text.translate(_MIRRORED)),
    _cipher(Encoding.REVERSED, lambda text: text[::-1]),
)


def decode_ciphers(text: str) -> Iterator[Decoded]:
    """Yields the texts that are encoded in ``text`` by rot13, atbash, reversal, leetspeak or spaced-out letters, with
    their places."""
    words = set(_WORD.findall(text.lower()))
    for cipher in _CIPHERS:
        if len(words & cipher.encoded) >= _MIN_WORDS:
            yield from _stretches(text, cipher)
    yield from _leet(text)
    yield from _spaced(text)


def _stretches(text: str, cipher: _Cipher) -> Iterator[Decoded]:
    """The stretches with the highest sum of scores (Kadane), from their first encoded word to their last."""
    total, best, known = 0.0, 0.0, set[str]()
    words = list(_WORD.finditer(text))
    first = last = 0
    for index, match in enumerate(words):
        word = match[0].lower()
        total += cipher.scores[word] if word in cipher.scores else _unknown(word, cipher.decode(word))
        if total <= 0 or total < best - _MIN_SCORE:
            yield from _stretch(text, words[first : last + 1], best, known, cipher)
            total, best, known, first = 0.0, 0.0, set(), index + 1
        elif total > best:
            best, last = total, index
        if word in cipher.encoded:
            known.add(word)
    yield from _stretch(text, words[first : last + 1], best, known, cipher)


def _unknown(word: str, decoded: str) -> float:
    return 1.5 * (english_share(decoded) - english_share(word)) - 0.1 if len(word) > 2 else -0.1


def _stretch(
    text: str, words: list[re.Match[str]], score: float, known: set[str], cipher: _Cipher
) -> Iterator[Decoded]:
    if words and score >= _MIN_SCORE and len(known) >= _MIN_WORDS:
        start, end = words[0].start(), words[-1].end()
        yield Decoded(cipher.decode(text[start:end]), start, end, (cipher.encoding,))


def _leet(text: str) -> Iterator[Decoded]:
    """If common words are spelled so, all words that are letters then are written plainly."""
    words = {word: _leet_word(word.lower()) for word in set(_LEET_WORD.findall(text))}
    found = [plain for word, plain in words.items() if plain in COMMON_WORDS and len(word) > 2 and not word.isdigit()]
    if sum(map(len, found)) >= _MIN_LEET_LETTERS:
        changes = {match.span(): plain for match in _LEET_WORD.finditer(text) if (plain := words[match[0]])}
        yield with_context(text, changes, Encoding.LEET)


def _leet_word(word: str) -> str:
    """Returns the word that this one spells, a common one if it can be; empty if it is one already or spells none.
    Short words and numbers spell common ones only."""
    if word.isalpha():
        return ""
    plain = [word.translate(table) for table in _LEET]
    common = next((each for each in plain if each in COMMON_WORDS), "")
    if common or len(word) < 3 or word.isdigit():
        return common
    return plain[0] if plain[0].isalpha() else ""


def _spaced(text: str) -> Iterator[Decoded]:
    changes = {}
    for match in _SPACED.finditer(text):
        run = _whole_letters(match[0], text[match.end() : match.end() + 1])
        gap = len(run) - len(run[1:].lstrip(_SIGNS)) - 1  # between the first two letters
        words = re.sub(rf"[ .\-_*/|]{{{gap + 1},}}", "\0", run)
        plain = re.sub(r"[ .\-_*/|]", "", words).replace("\0", " ")
        if len(plain.replace(" ", "")) >= _MIN_SPACED and _is_english(plain.lower()):
            changes[match.start(), match.start() + len(run)] = plain
    if changes:
        yield with_context(text, changes, Encoding.SPACED)


def _whole_letters(run: str, behind: str) -> str:
    """Returns a run of single letters without its last one, if the character ``behind`` goes on with that as a word;
    "" if what is left does not end where a word may."""
    if not (behind.isalnum() or behind == "_"):
        return run
    return "" if run[-2] == "_" else run[:-1].rstrip(_SIGNS)


def _is_english(letters: str) -> bool:
    """Whether letters that may lack spaces are English: unlike an alphabet or the options of a question."""
    return letters in COMMON_WORDS or (len(letters) > 7 and english_share(letters) > 0.5)
