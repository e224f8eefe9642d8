"""``Tokenizer``: converts prompts to token ids and token ids to text, with the tokenizer and the chat template of a
model.

Nothing changes after loading, so callers may use it from any thread.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from engine.api import Conversation, GenerationRequest, Prompt, RequestError
from engine.chat_template import ChatTemplate
from engine.decode.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from engine.decode.grammar import GrammarCompiler
from engine.hub_tokenizer import HubTokenizer
from engine.token_bytes import byte_table, piece_bytes, respelled, strips_first_space
from engine.tokenizer_files import eos_token_ids, read_tokenizer

MAX_BYTES_PER_TOKEN = 4  # a text with more bytes for each token that fits is counted in pieces before it is encoded
PIECE_CHARACTERS = 4096  # characters of a piece, where a text is counted in pieces
MAX_CUT_TOKENS = 16  # tokens that cutting a text may add to a piece
MAX_INLINE_CHARACTERS = 1024  # most characters of a text that is encoded with the interpreter's lock held
MAX_CONTEXT_TOKENS = 16  # last tokens of a prompt that a detokenizer decodes again


class PromptTooLongError(Exception):
    """The prompt has more tokens than fit. It has at least ``tokens`` tokens; they were not all counted."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class Tokenizer:
    """The tokenizer of a model: encodes prompts, decodes tokens and makes detokenizers. ``eos_token_ids`` are the ids
    of the tokens that end an answer."""

    def __init__(self, hub: HubTokenizer, eos_token_ids: frozenset[int], chat_template: str | None = None) -> None:
        """Turns off the truncation and padding of ``hub``. ``chat_template`` is the source of a template in place of
        that of ``hub``."""
        self._hub = hub
        self._fast: FastTokenizer = hub.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        added = self._fast.get_added_tokens_decoder()
        special = [token.content for token in added.values() if token.special]
        self._special_ids = {token_id for token_id, token in added.items() if token.special}
        self._nonce = secrets.token_hex(8)
        self._private = {text: f"\ue000{self._nonce}:{place}\ue001" for place, text in enumerate(special)}
        self._literal = respelled(self._fast, self._private)  # reads the names of special tokens as plain text
        self._special = _any_of(special)
        self._added = _any_of([token.content for token in added.values()])
        self._beginnings = {text[:length] for text in special for length in range(1, len(text))}
        self._longest = max(map(len, special), default=0)
        self._template = ChatTemplate(chat_template or hub.chat_template, hub.special_tokens_map)
        self._bytes, self._bare = byte_table(self._fast), strips_first_space(self._fast)
        self.eos_token_ids = eos_token_ids

    @classmethod
    def from_directory(cls, directory: Path, chat_template: str | None = None) -> Tokenizer:
        """Loads the tokenizer of a Hugging Face model directory, without network access. ``chat_template`` is as for
        the class. Raises OSError if the directory has no tokenizer, and ValueError if the library tokenizers cannot run
        it."""
        hub = read_tokenizer(directory)
        end = hub.special_tokens_map.get("eos_token")
        ends = eos_token_ids(directory, None if end is None else hub.backend_tokenizer.token_to_id(end))
        return cls(hub, ends, chat_template)

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be encoded."""
        return bool(self._template)

    def grammar_compiler(self, vocab_size: int) -> GrammarCompiler:
        """Returns the compiler of grammars (structured output) for this tokenizer and a model that has logits for
        ``vocab_size`` tokens."""
        return GrammarCompiler(self._hub, vocab_size, self.eos_token_ids)

    @property
    def size(self) -> int:
        """Number of tokens in the vocabulary, added tokens included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    @property
    def vocabulary(self) -> dict[str, int]:
        """The id of each token in the vocabulary, added tokens included."""
        return dict(self._fast.get_vocab(with_added_tokens=True))

    def encode(self, prompt: Prompt, most: int | None = None) -> list[int]:
        """Returns the token ids of ``prompt``. A prompt of token ids is returned unchecked.

        ``most`` is the number of tokens that fit; None: no limit. A text that is much longer raises PromptTooLongError
        before all of it is encoded. One that is a little longer is encoded, so the caller must check the length.

        Raises RequestError for text with an unpaired surrogate, for a conversation without a chat template, and for one
        that the template refuses."""
        if isinstance(prompt, str):
            _check_unicode(prompt, "prompt")
            _check_length(self._fast, prompt, most)
            return _ids(self._fast, prompt, add_special_tokens=True)
        if isinstance(prompt, Conversation):
            _check_unicode("".join(text for message in prompt.messages for text in message.texts), "messages")
            _check_unicode("".join(prompt.tools), "tools")
            _check_unicode("".join(map("".join, prompt.template_kwargs)), "chat_template_kwargs")
            text = self._render(prompt)
            _check_length(self._literal, text, most)
            return _ids(self._literal, text)
        return list(prompt)

    def check(self, request: GenerationRequest) -> None:
        """Does nothing: this tokenizer can serve every request. ``TokenIds.check`` refuses requests with text."""

    def spellings(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """Returns the token sequences of each of ``words``, without and with a space before it, in the order of
        ``words`` and without duplicates. Raises RequestError for a word with an unpaired surrogate."""
        texts = [text for word in words for text in (word, f" {word.lstrip()}")]
        for text in texts:
            _check_unicode(text, "bad_words")
        encoded = (tuple(_ids(self._literal, text)) for text in texts)
        return list(dict.fromkeys(tokens for tokens in encoded if tokens))

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of ``tokens``, without special tokens. Bytes that are not valid UTF-8 become U+FFFD."""
        if self._bytes is None:
            return self._fast.decode(list(tokens), skip_special_tokens=True)
        detokenizer = self.detokenizer()
        return "".join(map(detokenizer.push, tokens)) + detokenizer.flush()

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes that ``token`` adds within a text, in UTF-8. For a special token, and if the bytes of
        tokens are unknown, returns the token's name. For an id outside the vocabulary, returns no bytes."""
        if self._bytes is not None and token in self._bytes:
            return self._bytes[token]
        return piece_bytes(self._fast.id_to_token(token) or "")

    def detokenizer(self, prompt: Sequence[int] = (), verbatim: bool = False) -> Detokenizer:
        """Returns a new incremental detokenizer for one sequence that continues ``prompt``. Its text, after the text of
        the prompt, is the text of all these tokens.

        SentencePiece tokenizers drop the space at the start of a text. The detokenizer drops it only if the prompt has
        no text; with ``verbatim``, it never does. ``verbatim`` has no effect if the bytes of tokens are unknown."""
        if self._bytes is not None:
            bare = self._bare and not verbatim and not any(map(self._bytes.get, prompt))
            return ByteDetokenizer(self._bytes, bare)
        said = (token for token in reversed(prompt) if token not in self._special_ids)
        return WindowDetokenizer(self.decode, list(islice(said, MAX_CONTEXT_TOKENS))[::-1])

    def _render(self, conversation: Conversation) -> str:
        """Returns the conversation as one text for ``self._literal``, since models are trained on conversations that
        are tokenised in one piece. A special token that the template writes gets its private name, which
        ``self._literal`` encodes as that token. The name of a special token in a message of the client stays plain
        text."""
        literals: list[str] = []

        def mark(text: str) -> str:
            literals.append(text)
            return f"\ue000{self._nonce}.{len(literals) - 1}\ue001"

        def hide(text: str) -> str:
            text = self._special.sub(lambda found: mark(found[0]), text)
            body = text.rstrip()  # a template may trim what it joins with something else
            ends = range(max(0, len(body) - self._longest), len(body))
            end = next((at for at in ends if body[at:] in self._beginnings), None)
            return text if end is None else f"{text[:end]}{mark(body[end:])}{text[len(body) :]}"

        rendered = self._template.render(conversation, hide)
        text = ""
        # Every second piece is the number of a literal; a template may drop some or repeat them.
        for place, piece in enumerate(re.split(rf"\ue000{self._nonce}\.(\d+)\ue001", rendered)):
            text += literals[int(piece)] if place % 2 else self._added.sub(self._in_private, piece)
        return text

    def _in_private(self, found: re.Match[str]) -> str:
        """Returns the private name of a special token, and the text of any other match unchanged."""
        return self._private.get(found[0], found[0])


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Returns a pattern that matches the longest of several texts, as the library tokenizers does. Without texts it
    matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, texts), key=len, reverse=True))) or r"(?!)")


def _ids(fast: FastTokenizer, text: str, add_special_tokens: bool = False) -> list[int]:
    """Returns the token ids of ``text``. Encodes a long text as a batch, since the library tokenizers releases the
    interpreter's lock only for batches."""
    if len(text) <= MAX_INLINE_CHARACTERS:
        return list(fast.encode(text, add_special_tokens=add_special_tokens).ids)
    return list(fast.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)


def _check_length(fast: FastTokenizer, text: str, most: int | None) -> None:
    """Raises PromptTooLongError if ``text`` is much longer than ``most`` tokens. Counts the tokens piece by piece, and
    only if the text has more than MAX_BYTES_PER_TOKEN bytes for each token that fits."""
    if most is None or len(text.encode("utf-8")) <= MAX_BYTES_PER_TOKEN * most:
        return
    tokens = 0
    for start in range(0, len(text), PIECE_CHARACTERS):
        piece = _ids(fast, text[start : start + PIECE_CHARACTERS])
        tokens += max(0, len(piece) - MAX_CUT_TOKENS)
        if tokens > most:
            raise PromptTooLongError(tokens)


def _check_unicode(text: str, param: str) -> None:
    """Raises RequestError, naming ``param``, for text with an unpaired surrogate. JSON and Python strings can hold one,
    and tokenizers cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError("The text holds half of a surrogate pair, which is no character.", param) from error
