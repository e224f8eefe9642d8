"""``terms``: the index terms of a text. Pure.

Words are compared without case, accents and common English endings. Scripts that are written without spaces are
indexed by pairs of characters, as in Lucene's CJK analyzer.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

WORD = re.compile(r"[^\W_]+", re.UNICODE)
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+")
"""Thai, Lao, Burmese, Khmer, Kana, Han and Hangul."""
MAX_WORD = 64  # characters of a word that count

STOP_WORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does", "for", "from"}
    | {"had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "of"}
    | {"on", "or", "our", "she", "should", "so", "such", "than", "that", "the", "them", "then", "their", "there"}
    | {"these", "they", "this", "those", "to", "was", "we", "were", "what", "when", "where", "which", "while", "who"}
    | {"whom", "whose", "why", "will", "with", "would", "you", "your"}
)
"""English words that say nothing of what a text is about. In a small corpus their rarity would mislead."""


def terms(text: str) -> list[str]:
    """Returns the terms of ``text`` in their order, without stop words: stems of words in ASCII, other words without
    case and accents, and pairs of characters of scripts without spaces."""
    found: list[str] = []
    for match in WORD.finditer(_folded(text)):
        word = match[0]
        if word.isascii():
            if word not in STOP_WORDS:
                found.append(stem(word[:MAX_WORD]))
        else:
            found += _other(word)
    return found


def _folded(text: str) -> str:
    """Returns ``text`` in lower case, without accents."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(each for each in parts if not unicodedata.combining(each)))


def _other(word: str) -> list[str]:
    """Returns the terms of a word with letters beyond ASCII."""
    found, place = [], 0
    for match in UNSPACED.finditer(word):
        if before := word[place : match.start()]:
            found.append(stem(before[:MAX_WORD]))
        run = match[0]
        found += [run] if len(run) == 1 else [run[i : i + 2] for i in range(len(run) - 1)]
        place = match.end()
    if rest := word[place:]:
        found.append(stem(rest[:MAX_WORD]))
    return found


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Returns an English word in lower case without its commonest endings. Other words mostly stay as they are."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "edly", "ed", "ly"):
        root = word.removesuffix(ending)
        if root != word and len(root) >= 3 and any(vowel in root for vowel in "aeiouy"):
            word = root[:-1] if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz" else root
            break
    return word[:-1] if len(word) > 4 and word.endswith("e") else word
