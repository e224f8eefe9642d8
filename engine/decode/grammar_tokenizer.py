"""A model's vocabulary as llguidance reads it: a tokenizer.json, a number of tokens and the ids that end an answer.

llguidance writes a forced text as its tokenizer does, and gives up where that takes a special token for the spelling of
one: a choice that contains ``<|end|>``, or a tool call under a model for which ``<tool_call>`` is a token. So the
tokenizer that it gets knows special tokens by names that no text has, and spells them out where a text does.

Importing this loads neither llguidance nor a tokenizer: the process that tries grammars starts with it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.decode.detokenizer import byte_alphabet

if TYPE_CHECKING:
    from llguidance import LLTokenizer

MARK = "\U0010fffd"  # before the name of a special token; no character of any script
END = f"{MARK}<|end of a structured output|>"
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``text`` is a tokenizer.json. ``size`` counts tokens: the larger of the tokenizer's and the model's."""

    text: str
    size: int
    eos_token_ids: tuple[int, ...]

    @classmethod
    def of(cls, hub: Any, rows: int, eos_token_ids: Collection[int]) -> Vocabulary:
        """``hub`` is a tokenizer of transformers; ``rows`` is the number of tokens that the model has logits for.

        Either may be the larger one: models pad their rows, and fine-tunes add tokens without new rows. Such tokens
        are left out, so that what they stand for is spelt by others. llguidance needs at least one token that ends an
        answer, among those of the tokenizer; a tokenizer without one gets one.
        """
        fast = hub.backend_tokenizer
        data = json.loads(fast.to_str())
        added = data["added_tokens"]
        data["added_tokens"] = [token for token in added if token["id"] < rows]
        known = fast.get_vocab_size(with_added_tokens=True) - len(added) + len(data["added_tokens"])
        ends = tuple(sorted(token for token in eos_token_ids if token < known))
        if not ends:
            data["added_tokens"].append({"id": known, "content": END, **_ADDED})
            ends = (known,)
        _hide_special_tokens(data)
        return cls(json.dumps(data), max(rows, max(ends) + 1, known), ends)

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


def _hide_special_tokens(data: dict[str, Any]) -> None:
    """Changes a tokenizer.json so that no text is read as a special token. ``<tool_call>`` and its like, which are part
    of the text but which llguidance takes for special ones, become tokens like any other."""
    data["padding"] = data["truncation"] = data["post_processor"] = None
    _begin_anywhere(data["pre_tokenizer"])
    kept, names = [], {}
    parts = _merged(data["model"])
    for token in data["added_tokens"]:
        content = token["content"]
        if content in parts:
            pass  # a word that the model's merges need under its own name
        elif token["special"]:
            names[token["id"]] = content, content if content == END else MARK + content
        elif content.startswith("<") and content.endswith(">") and isinstance(data["model"]["vocab"], dict):
            names[token["id"]] = content, _spelt(content, data)
            continue
        kept.append({**token, "content": names.get(token["id"], (content, content))[1]})
    data["added_tokens"] = kept
    _rename(data["model"], names)


def _begin_anywhere(step: dict[str, Any] | None) -> None:
    """Forced text does not begin a text: no space is put before it. llguidance sees to SentencePiece's itself."""
    if step is not None and step["type"] == "ByteLevel":
        step["add_prefix_space"] = False
    for part in (step or {}).get("pretokenizers", ()):
        _begin_anywhere(part)


def _rename(model: dict[str, Any], names: dict[int, tuple[str, str]]) -> None:
    """Puts tokens under their new names into a model's vocabulary, which gives added tokens their ids."""
    vocab = model["vocab"]
    for token, (old, new) in names.items():
        if isinstance(vocab, dict):
            vocab.pop(old, None)
            vocab[new] = token
        elif token < len(vocab):
            vocab[token][0] = new
        if model.get("unk_token") == old:
            model["unk_token"] = new


def _merged(model: dict[str, Any]) -> set[str]:
    """The tokens that merges make."""
    pairs = model.get("merges") or []
    return {pair.replace(" ", "") if isinstance(pair, str) else "".join(pair) for pair in pairs}


def _spelt(text: str, data: dict[str, Any]) -> str:
    """A text as the vocabulary spells it: by GPT-2's alphabet of bytes, or with SentencePiece's mark for a space."""
    if '"ByteLevel"' in json.dumps(data["decoder"]):
        characters = {byte: character for character, byte in byte_alphabet().items()}
        return "".join(characters[byte] for byte in text.encode())
    return text.replace(" ", "\u2581")
