"""Stand-in for the tokenizer of a model without one: prompts and answers are token ids only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from engine.api import Conversation, GenerationRequest, Prompt, RequestError
from engine.chat_template import read_template
from engine.decode.detokenizer import ByteDetokenizer, Detokenizer
from engine.decode.grammar import GrammarCompiler
from engine.gguf import tokenizer as gguf_tokenizer
from engine.model.source import GGUFModel, ModelSource
from engine.tokenizer import Tokenizer
from engine.tokenizer_files import eos_token_ids, has_tokenizer


class TokenIds:
    """Has the interface of Tokenizer for a model without a tokenizer. Answers have no text. Requests that need text
    raise RequestError. ``vocabulary`` is empty."""

    vocabulary: dict[str, int]

    def __init__(self, eos_token_ids: frozenset[int]) -> None:
        self.eos_token_ids = eos_token_ids
        self.vocabulary = {}

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Makes the stand-in for a model directory without a tokenizer. Reads its end-of-sequence tokens."""
        return cls(eos_token_ids(directory, None))

    def grammar_compiler(self, vocab_size: int) -> GrammarCompiler:
        """Returns a compiler that refuses every grammar. ``check`` refuses such requests earlier."""
        return GrammarCompiler(None, vocab_size, self.eos_token_ids)

    def check(self, request: GenerationRequest) -> None:
        """Raises RequestError, naming the field, for a request that contains text or a grammar."""
        params = request.sampling
        if isinstance(request.prompt, Conversation):
            raise _refusal("messages")
        if isinstance(request.prompt, str):
            raise _refusal("prompt")
        for param in ("stop", "bad_words"):
            if getattr(params, param):
                raise _refusal(param)
        if params.grammar is not None:
            raise _refusal(params.grammar.param)

    def encode(self, prompt: Prompt, most: int | None = None) -> list[int]:
        """Returns ``prompt`` as a list, unchecked. Raises RequestError for a text or a conversation. ``most`` has no
        effect."""
        if isinstance(prompt, str | Conversation):
            raise _refusal("prompt" if isinstance(prompt, str) else "messages")
        return list(prompt)

    def spellings(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """Returns an empty list. Raises RequestError if there are any words."""
        if words:
            raise _refusal("bad_words")
        return []

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns an empty string."""
        return ""

    def token_bytes(self, token: int) -> bytes:
        """Returns ``token_id:N`` in ASCII, where N is ``token``: vLLM's spelling of a token by its id."""
        return f"token_id:{token}".encode()

    def detokenizer(self, prompt: Sequence[int] = (), verbatim: bool = False) -> Detokenizer:
        """Returns a detokenizer whose text is always empty."""
        return ByteDetokenizer({})


def load_tokenizer(source: ModelSource, chat_template: Path | None = None) -> Tokenizer | TokenIds:
    """Returns the tokenizer of a model, or TokenIds if the model has none. ``chat_template`` is a file with a template
    for conversations, in place of the model's.

    Raises OSError if the template cannot be read, and ValueError for a template that is none, or of a model without a
    tokenizer, and for a tokenizer that the library tokenizers cannot run."""
    template = None if chat_template is None else read_template(chat_template)
    found = _of_gguf(source, template) if isinstance(source, GGUFModel) else _of_directory(source.path, template)
    if template is not None and isinstance(found, TokenIds):
        raise ValueError(f"chat_template: {source.path} has no tokenizer, and so no conversations")
    return found


def _of_gguf(model: GGUFModel, template: str | None) -> Tokenizer | TokenIds:
    if not gguf_tokenizer.has_tokenizer(model.metadata):
        return TokenIds(frozenset())
    ends = gguf_tokenizer.eos_token_ids(model.metadata)
    return Tokenizer(gguf_tokenizer.tokenizer_of(model.metadata), ends, template)


def _of_directory(directory: Path, template: str | None) -> Tokenizer | TokenIds:
    if not has_tokenizer(directory):
        return TokenIds.from_directory(directory)
    return Tokenizer.from_directory(directory, template)


def _refusal(param: str) -> RequestError:
    """Returns the error for a request that needs a tokenizer."""
    return RequestError("The model has no tokenizer: it takes and gives token ids, and no text.", param)
