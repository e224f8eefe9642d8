"""``WordPieces``: cuts texts into BERT's word pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from safety.encoder.architecture import UnsupportedEncoderError

MAX_LOCKED_CHARACTERS = 4096  # some 1 ms


class WordPieces:
    """A lower-casing WordPiece tokenizer. ``[CLS]``, ``[SEP]`` and the like in a text are tokenised as text, not as
    special tokens, so that the author of a text cannot end a sequence. ``cls`` and ``sep`` are the ids of the special
    tokens."""

    def __init__(self, vocabulary: Path) -> None:
        """Reads ``vocab.txt``, a token in each line, or the ``tokenizer.json`` of such a tokenizer.

        Raises OSError, and UnsupportedEncoderError for a file of another kind or without the special tokens.
        """
        text = vocabulary.read_text(encoding="utf-8")
        ids = _json_ids(text, vocabulary) if vocabulary.suffix == ".json" else _line_ids(text)
        missing = [token for token in ("[CLS]", "[SEP]", "[UNK]") if token not in ids]
        if missing:
            raise UnsupportedEncoderError(f"{vocabulary} has no {', '.join(missing)}")
        self.cls, self.sep = ids["[CLS]"], ids["[SEP]"]
        self._tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    def __call__(self, text: str) -> list[int]:
        """Returns the ids of the word pieces of ``text``, without special tokens."""
        ids: list[int] = self._encoded(text).ids
        return ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Returns for each word piece of ``text`` the index of its first character and of the one after its last, as
        the text was given: with its accents, capitals and characters that no piece has."""
        found: list[tuple[int, int]] = self._encoded(text).offsets
        return found

    def _encoded(self, text: str) -> Encoding:
        """Encodes a long text as a batch, since the library tokenizers releases the interpreter's lock only for
        batches: 60 ms for 200,000 characters."""
        if len(text) <= MAX_LOCKED_CHARACTERS:
            return self._tokenizer.encode(text, add_special_tokens=False)
        return self._tokenizer.encode_batch([text], add_special_tokens=False)[0]


EXPECTED: Mapping[str, Mapping[str, Any]] = {
    "model": {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    "normalizer": {"type": "BertNormalizer", "lowercase": True, "clean_text": True, "handle_chinese_chars": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
}
"""What a ``tokenizer.json`` must say, by its parts."""


def _line_ids(text: str) -> dict[str, int]:
    """Returns the ids of the tokens in a ``vocab.txt``."""
    return {token: number for number, token in enumerate(text.split("\n")) if token}


def _json_ids(text: str, path: Path) -> dict[str, int]:
    """Returns the ids of the tokens in a ``tokenizer.json``. Raises UnsupportedEncoderError."""
    try:
        document = json.loads(text)
        for part, keys in EXPECTED.items():
            for key, value in keys.items():
                if document[part][key] != value:
                    raise UnsupportedEncoderError(f"{path}: {part}.{key} must be {value}, not {document[part][key]}")
        return {str(token): int(number) for token, number in document["model"]["vocab"].items()}
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise UnsupportedEncoderError(f"{path} is no tokenizer of word pieces: {error}") from error
