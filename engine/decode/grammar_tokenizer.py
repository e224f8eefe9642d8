"""The tokenizer in the form that llguidance loads: a changed tokenizer.json, the number of tokens, and the
end-of-sequence tokens.

llguidance encodes forced text with this tokenizer, and fails if the text contains the name of a special token: a choice
with ``<|end|>``, or a tool call under a model for which ``<tool_call>`` is a token. Therefore special tokens get names
here that occur in no text, and a text with their usual name is encoded by ordinary tokens.

Importing this module loads neither llguidance nor a tokenizer, so the process that tries out grammars starts quickly.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.decode.detokenizer import byte_alphabet

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from engine.hub_tokenizer import HubTokenizer

MARK = "\U0010fffd"  # prefix of the new names of special tokens; a code point that no text uses
END = f"{MARK}<|end of a structured output|>"
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer for llguidance. ``text`` is a tokenizer.json. ``size`` is the number of tokens: the larger of the
    tokenizer's and the model's."""

    text: str
    size: int
    eos_token_ids: tuple[int, ...]

    @classmethod
    def of(cls, hub: HubTokenizer, rows: int, eos_token_ids: Collection[int]) -> Vocabulary:
        """Converts ``hub``. ``rows`` is the number of tokens that the model has logits for.

        It may differ from the tokenizer's number of tokens: models pad their output layer, and fine-tunes add tokens
        without logits. Tokens without logits are left out, so that their text is encoded by others. llguidance needs at
        least one end-of-sequence token that the tokenizer knows; a tokenizer without one gets one.
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
        """Loads llguidance's tokenizer. For 150,000 tokens that takes 2 s and 140 MB, and holds the interpreter's lock.
        Raises ValueError for a tokenizer that llguidance cannot read."""
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(self.text, n_vocab=self.size, eos_token=list(self.eos_token_ids))
        except BaseException as error:  # a Rust panic is a BaseException, not an Exception
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise ValueError(f"llguidance cannot read this tokenizer: {type(error).__name__}") from None
            raise


def _hide_special_tokens(data: dict[str, Any]) -> None:
    """Changes a tokenizer.json so that no text is encoded as a special token. Tokens such as ``<tool_call>``, which
    belong to the text but which llguidance takes for special tokens, become ordinary tokens."""
    data["padding"] = data["truncation"] = data["post_processor"] = None
    _begin_anywhere(data["pre_tokenizer"])
    kept, names = [], {}
    parts = _merged(data["model"])
    for token in data["added_tokens"]:
        content = token["content"]
        if content in parts:
            pass  # a merge of the model needs this name
        elif token["special"]:
            names[token["id"]] = content, content if content == END else MARK + content
        elif content.startswith("<") and content.endswith(">") and isinstance(data["model"]["vocab"], dict):
            names[token["id"]] = content, _spelt(content, data)
            continue
        kept.append({**token, "content": names.get(token["id"], (content, content))[1]})
    data["added_tokens"] = kept
    _rename(data["model"], names)


def _begin_anywhere(step: dict[str, Any] | None) -> None:
    """Turns off the space that a byte-level pre-tokenizer adds before a text, because forced text does not begin a
    text. llguidance does this itself for SentencePiece."""
    if step is not None and step["type"] == "ByteLevel":
        step["add_prefix_space"] = False
    for part in (step or {}).get("pretokenizers", ()):
        _begin_anywhere(part)


def _rename(model: dict[str, Any], names: dict[int, tuple[str, str]]) -> None:
    """Renames tokens in the model's vocabulary. ``names`` has the old and the new name of each token id."""
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
    """Returns the tokens that the model's merges produce."""
    pairs = model.get("merges") or []
    return {pair.replace(" ", "") if isinstance(pair, str) else "".join(pair) for pair in pairs}


def _spelt(text: str, data: dict[str, Any]) -> str:
    """Returns ``text`` as a vocabulary writes it: with GPT-2's byte characters, or with SentencePiece's mark for a
    space."""
    if '"ByteLevel"' in json.dumps(data["decoder"]):
        characters = {byte: character for character, byte in byte_alphabet().items()}
        return "".join(characters[byte] for byte in text.encode())
    return text.replace(" ", "\u2581")
