"""Texts as windows of word pieces, as config.json describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import BertWordPieceTokenizer

from safety.classifier.emoji import without_emoji

CLS: Final = 101
SEP: Final = 102
WINDOW: Final = 126  # word pieces, without [CLS] and [SEP]
STRIDE: Final = 96


class WordPieces:
    """Cuts texts into the ids of their word pieces, without special tokens. ``emoji``: whether they stay in the texts,
    which the safety classifier reads without."""

    def __init__(self, vocabulary: Path, emoji: bool = False) -> None:
        self._tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        self._emoji = emoji

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        read = list(texts) if self._emoji else [without_emoji(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(read, add_special_tokens=False)]


def windows(pieces: Sequence[int]) -> list[list[int]]:
    """Returns the windows of a text, special tokens included. The last one ends where the text ends."""
    starts = list(range(0, max(1, len(pieces) - WINDOW + STRIDE), STRIDE))
    starts[-1] = max(0, min(starts[-1], len(pieces) - WINDOW))
    return [[CLS, *pieces[start : start + WINDOW], SEP] for start in starts]
