"""A model's vocabulary as llguidance reads it: a tokenizer.json, a number of tokens and the ids that end an answer.

Importing this loads neither llguidance nor a tokenizer: the process that tries grammars starts with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llguidance import LLTokenizer

END = "<|end of a structured output|>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``text`` is a tokenizer.json. ``size`` counts tokens: the larger of the tokenizer's and the model's."""

    text: str
    size: int
    eos_token_ids: tuple[int, ...]

    @classmethod
    def of(cls, hub: Any, rows: int, eos_token_ids: Collection[int]) -> Vocabulary:
        """``hub`` is a tokenizer of transformers; ``rows`` is the number of tokens that the model has logits for.

        Either may be the larger one: models pad their rows, and fine-tunes add tokens without new rows. llguidance
        needs at least one token that ends an answer, among those of the tokenizer; a tokenizer without one gets one.
        """
        from tokenizers import AddedToken, Tokenizer

        fast = Tokenizer.from_str(hub.backend_tokenizer.to_str())
        fast.no_padding()
        fast.no_truncation()
        known = fast.get_vocab_size(with_added_tokens=True)
        ends = tuple(sorted(token for token in eos_token_ids if token < known))
        if not ends:
            fast.add_special_tokens([AddedToken(END, special=True)])
            ends = (known,)
        return cls(fast.to_str(), max(rows, fast.get_vocab_size(with_added_tokens=True)), ends)

    def load(self) -> LLTokenizer:
        """Takes 2 s and 140 MB for 150,000 tokens, and holds the interpreter's lock. Raises ValueError for a tokenizer
        that llguidance cannot read."""
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(self.text, n_vocab=self.size, eos_token=list(self.eos_token_ids))
        except BaseException as error:  # a panic of Rust is no Exception
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise ValueError(f"llguidance cannot read this tokenizer: {type(error).__name__}") from None
            raise
