"""Makes the tokenizer for engine/tokenizer.py from a GGUF file's metadata.

Token ids are those of llama.cpp (src/llama-vocab.cpp), for which the files are made. Where transformers interprets the
same keys differently (integrations/gguf/gguf_tokenizer_mapping.py), a comment says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from engine.decode.detokenizer import byte_alphabet
from engine.gguf.control_tokens import END_OF_TURN
from engine.gguf.errors import GGUFError
from engine.gguf.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from engine.gguf.vocabulary import SCORES, Vocabulary, flag, merges, numbers, special_id, string, strings
from engine.hub_tokenizer import PlainTokenizer
from engine.model.spec import UnsupportedModelError

MODEL, PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"
ADD_BOS, ADD_EOS = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"
ADD_SPACE = "tokenizer.ggml.add_space_prefix"
CHAT_TEMPLATE, CHAT_TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"  # what the model is called
SPACE = "\u2581"
_SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unknown": 0}  # where no key says otherwise
_NEVER_STRIPPED = ("<unk>", "<s>", "<|endoftext|>")


def has_tokenizer(metadata: Mapping[str, Any]) -> bool:
    """Returns whether the file has a vocabulary. A file may have weights alone."""
    return str(metadata.get(MODEL, "none")) not in ("none", "no_vocab")


def tokenizer_of(metadata: Mapping[str, Any]) -> PlainTokenizer:
    """Returns the tokenizer of a file with this ``metadata``, with its special tokens and chat templates.

    Raises UnsupportedModelError for a kind of tokenizer or pre-tokenizer that is not known, GGUFError for a key that is
    missing, of another type or length, or in conflict with another key. The message names the key.
    """
    kind = _kind(metadata)
    vocabulary = Vocabulary.read(metadata)
    special = _SpecialTokens.read(metadata, vocabulary)
    if kind == BYTE_LEVEL:
        pre_tokenizer = _pre_tokenizer(metadata)
        fast = _byte_level(metadata, vocabulary, pre_tokenizer)
        adds_bos = pre_tokenizer.adds_bos
    else:
        fast, adds_bos = _sentencepiece(metadata, vocabulary), True
    fast.add_tokens(_added_tokens(metadata, vocabulary, special))
    fast.post_processor = _framing(metadata, vocabulary, special, adds_bos)
    names = {f"{name}_token": vocabulary.tokens[token] for name, token in special.named.items()}
    return PlainTokenizer(fast, _chat_template(metadata), names)


def eos_token_ids(metadata: Mapping[str, Any]) -> frozenset[int]:
    """Returns the ids of the tokens that end an answer: the end of a text, of a turn and of a message, where keys name
    them. If no key names the end of a turn, tokens with well-known names count, as in llama.cpp. Raises as
    ``tokenizer_of`` does."""
    return _SpecialTokens.read(metadata, Vocabulary.read(metadata)).ends


@dataclass(frozen=True, slots=True)
class _SpecialTokens:
    """Ids of tokens with a part of their own."""

    named: Mapping[str, int]  # by transformers' word for the part
    ends: frozenset[int]  # of a text, a turn, a message

    @classmethod
    def read(cls, metadata: Mapping[str, Any], vocabulary: Vocabulary) -> _SpecialTokens:
        """Raises UnsupportedModelError, and GGUFError for a token that is not in the vocabulary."""
        size, ids = len(vocabulary.tokens), vocabulary.ids
        defaults = _SENTENCEPIECE_IDS if _kind(metadata) == SENTENCEPIECE else {}
        words = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        found = {word: special_id(metadata, key, size, defaults.get(key)) for word, key in words.items()}
        ends = [found["eos"], *(special_id(metadata, key, size) for key in ("eot", "eom"))]
        if "tokenizer.ggml.eot_token_id" not in metadata:
            ends += [ids[text] for text in END_OF_TURN if text in ids]
        # Padding is often any token at all, and an answer may need it.
        plain = [word for word in ("unk", "pad") if (token := found[word]) is None or not vocabulary.is_special(token)]
        return cls(
            {word: token for word, token in found.items() if token is not None and word not in plain},
            frozenset(token for token in ends if token is not None),
        )


def _kind(metadata: Mapping[str, Any]) -> str:
    kind = string(metadata, MODEL)
    if kind not in (BYTE_LEVEL, SENTENCEPIECE):
        why = "the file has no tokenizer" if kind in ("none", "no_vocab") else "it is not supported"
        raise UnsupportedModelError(f"{MODEL} is {kind!r}: {why}; supported: {BYTE_LEVEL}, {SENTENCEPIECE}")
    return kind


def _pre_tokenizer(metadata: Mapping[str, Any]) -> PreTokenizer:
    name = string(metadata, PRE, default="default")  # files from before the key existed
    if name not in PRE_TOKENIZERS:
        raise UnsupportedModelError(f"{PRE} {name!r} is not supported; supported: {', '.join(sorted(PRE_TOKENIZERS))}")
    return PRE_TOKENIZERS[name]


def _byte_level(metadata: Mapping[str, Any], vocabulary: Vocabulary, pre_tokenizer: PreTokenizer) -> Tokenizer:
    """Byte-level BPE (Radford et al. 2019). No normaliser: llama.cpp has none, not even where tokenizer.json has NFC.
    A byte without a token is left out, whatever the unknown token is."""
    ids = vocabulary.ids
    fast = Tokenizer(models.BPE(ids, merges(metadata, ids), ignore_merges=pre_tokenizer.ignore_merges))
    # transformers cuts like GPT-2 for names that it does not know, smollm among them.
    fast.pre_tokenizer = pre_tokenizer.built(missing=byte_alphabet().keys() - ids.keys())
    fast.decoder = decoders.ByteLevel()
    return fast


def _sentencepiece(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
    """SentencePiece's BPE (Kudo and Richardson 2018): the neighbours whose piece has the best score become one.
    Characters that are no piece are tokens of one byte."""
    unknown = special_id(metadata, "unknown", len(vocabulary.tokens), _SENTENCEPIECE_IDS["unknown"])
    model = models.BPE(
        vocabulary.ids,
        _merges_by_score(vocabulary, numbers(metadata, SCORES, len(vocabulary.tokens))),
        unk_token=None if unknown is None else vocabulary.tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    fast = Tokenizer(model)
    # A space goes before every stretch between added tokens, also before one that starts with a space. transformers'
    # Metaspace puts one before the text alone.
    prefixed = flag(metadata, ADD_SPACE, default=True)
    prefix: list[normalizers.Normalizer] = [normalizers.Prepend(SPACE)] if prefixed else []
    fast.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip: list[decoders.Decoder] = [decoders.Strip(" ", 1, 0)] if prefixed else []
    fast.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return fast


def _merges_by_score(vocabulary: Vocabulary, scores: NDArray[np.float64]) -> list[tuple[str, str]]:
    """All pairs of tokens that make up a third, in the order in which they are merged. Scores alone decide:
    transformers takes merges from a file that has some, and the order of the ids for Gemma.

    Of pieces with the same score llama.cpp merges the leftmost first. A list of merges cannot say that: here it is the
    one with the lower id.
    """
    ids = vocabulary.ids
    order = map(int, np.argsort(-scores, kind="stable"))
    # A text is cut at control tokens before anything is merged.
    texts = (vocabulary.tokens[token] for token in order if not vocabulary.is_special(token))
    return [
        (text[:cut], text[cut:])
        for text in texts
        for cut in range(len(text) - 1, 0, -1)
        if text[:cut] in ids and text[cut:] in ids
    ]


def _added_tokens(metadata: Mapping[str, Any], vocabulary: Vocabulary, special: _SpecialTokens) -> list[AddedToken]:
    """Tokens that a text can spell out, whatever is around them. Only special ones stay out of an answer's text."""
    named = {*special.named.values(), *special.ends}
    phi3 = any(name in string(metadata, "general.name", "").lower() for name in ("phi-3", "phi3"))
    return [
        AddedToken(
            text := vocabulary.tokens[token],
            special=token in named or vocabulary.is_special(token),
            normalized=False,
            # No key says it: llama.cpp goes by the model's name too. It strips white space in ASCII alone.
            rstrip=phi3 and text not in _NEVER_STRIPPED,
        )
        for token in sorted({*vocabulary.spelled, *named})
    ]


def _framing(
    metadata: Mapping[str, Any], vocabulary: Vocabulary, special: _SpecialTokens, adds_bos: bool
) -> processors.PostProcessor:
    """Puts the tokens before and after a text that the keys ask for, by default only the first if ``adds_bos``."""
    wanted = {"bos": flag(metadata, ADD_BOS, adds_bos), "eos": flag(metadata, ADD_EOS, default=False)}
    added = [name for name, is_wanted in wanted.items() if is_wanted]
    for name in added:
        if name not in special.named:
            raise GGUFError(f"tokenizer.ggml.{name}_token_id is missing, which every text needs")
    ids = {name: special.named[name] for name in added}
    return processors.TemplateProcessing(
        single=[*(name for name in added if name == "bos"), "$A", *(name for name in added if name == "eos")],
        special_tokens=[{"id": name, "ids": [at], "tokens": [vocabulary.tokens[at]]} for name, at in ids.items()],
    )


def _chat_template(metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """One template, or several by name as transformers has them: it takes ``tool_use`` for conversations with tools,
    else ``default``."""
    names = strings(metadata, CHAT_TEMPLATES) if CHAT_TEMPLATES in metadata else []
    named = {name: string(metadata, f"{CHAT_TEMPLATE}.{name}") for name in names}
    if named or CHAT_TEMPLATE in metadata:
        default = string(metadata, CHAT_TEMPLATE)
        return {**named, "default": default} if named else default
    return None
