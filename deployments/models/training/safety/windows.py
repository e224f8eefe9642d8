"""Texts as windows of word pieces, as config.json describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import BertWordPieceTokenizer

CLS: Final = 101
SEP: Final = 102
WINDOW: Final = 126  # word pieces, without [CLS] and [SEP]
STRIDE: Final = 96


class WordPieces:
    """Cuts texts into the ids of their word pieces, without special tokens."""

    def __init__(self, vocabulary: Path) -> None:
        self._tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def with_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns the ids of the word pieces of ``text``, and the characters that each is of, the last not included."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets


def windows(pieces: Sequence[int]) -> list[list[int]]:
    """Returns the windows of a text, special tokens included. The last one ends where the text ends."""
    return [[CLS, *pieces[start:end], SEP] for start, end in window_places(len(pieces))]


def window_places(length: int) -> list[tuple[int, int]]:
    """Returns where the windows of ``length`` word pieces start and end, the end not included."""
    starts = list(range(0, max(1, length - WINDOW + STRIDE), STRIDE))
    starts[-1] = max(0, min(starts[-1], length - WINDOW))
    return [(start, min(start + WINDOW, length)) for start in starts]
