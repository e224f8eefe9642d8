"""``WordPieces``: cuts texts into BERT's word pieces."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from safety.encoder.architecture import UnsupportedEncoderError


class WordPieces:
    """A lower-casing WordPiece tokenizer. ``[CLS]``, ``[SEP]`` and the like in a text are text, not special tokens: who
    wrote it cannot end a sequence. ``cls`` and ``sep`` are the ids of the special tokens."""

    def __init__(self, vocabulary: Path) -> None:
        """Reads ``vocab.txt``, a token in each line. Raises OSError, and UnsupportedEncoderError for a file without the
        special tokens."""
        tokens = vocabulary.read_text(encoding="utf-8").split("\n")
        ids = {token: number for number, token in enumerate(tokens) if token}
        missing = [token for token in ("[CLS]", "[SEP]", "[UNK]") if token not in ids]
        if missing:
            raise UnsupportedEncoderError(f"{vocabulary} has no {', '.join(missing)}")
        self.cls, self.sep = ids["[CLS]"], ids["[SEP]"]
        self._tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    def __call__(self, text: str) -> list[int]:
        """Returns the ids of the word pieces of ``text``, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
