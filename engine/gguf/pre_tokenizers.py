"""The pre-tokenizers of byte-level tokenizers, which split a text into words before bytes are merged, by their names in
``tokenizer.ggml.pre``.

The names and expressions are llama.cpp's (src/llama-vocab.cpp, src/unicode.cpp). Where a model's own tokenizer.json has
another expression than llama.cpp runs, the table has llama.cpp's, for which the files are made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """A pre-tokenizer: regular expressions in Oniguruma's syntax, applied one after the other. Each splits the pieces
    that the ones before it have left; the text between its matches becomes pieces too."""

    expressions: tuple[str, ...]
    ignore_merges: bool = False  # a piece that is a token is that token, whatever its merges make of it
    adds_bos: bool = False  # unless tokenizer.ggml.add_bos_token says otherwise

    def built(self, missing: Collection[str] = ()) -> pre_tokenizers.PreTokenizer:
        """Returns the pre-tokenizer for the library tokenizers, with bytes written in GPT-2's alphabet. Characters of
        the alphabet that are ``missing`` in the vocabulary are removed; the texts before and after one stay separate
        pieces."""
        cuts = [pre_tokenizers.Split(Regex(each), behavior="isolated") for each in self.expressions]
        # llama.cpp reads tokenizer.ggml.add_space_prefix for SentencePiece alone.
        steps = [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        if missing:
            steps.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, sorted(missing)))), behavior="removed"))
        return pre_tokenizers.Sequence(steps)


_SPACES = r"\s+(?!\S)|\s+"
_GPT2 = rf"'(?:[stmd]|re|ve|ll)| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_DIGIT = r"\p{N}"
_SHORT = r"\p{N}{1,3}"
# Written out: (?i:'s) would match 'ſ too, as in tokenizer.json, but not in llama.cpp.
_CONTRACTION = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"


def _words(
    digits: str, letters: str = r"\p{L}+", marks: str = "", before: str = rf"{_CONTRACTION}|", ends: str = r"[\r\n]*"
) -> str:
    """GPT-4's kind of expression, which many models have varied.

    ``before`` comes first, ``letters`` make a word with one other character in front of it, ``marks`` cannot be in a
    run of punctuation, and ``ends`` may follow one.
    """
    return (
        rf"{before}[^\r\n\p{{L}}\p{{N}}]?(?:{letters})|{digits}"
        rf"| ?[^\s\p{{L}}{marks}\p{{N}}]+{ends}|\s*[\r\n]+|{_SPACES}"
    )


# llama.cpp has no classes of upper and lower case: all letters outside ASCII are both, and marks are neither.
_UPPER, _LOWER = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
_CASED = rf"(?:{_UPPER}*{_LOWER}+|{_UPPER}+{_LOWER}*)"

_LLAMA3 = (_words(_SHORT),)
_QWEN2 = (_words(_DIGIT),)
_SMOLLM = (_DIGIT, _GPT2)
_GPT4O = (_words(_SHORT, letters=rf"{_CASED}(?:{_CONTRACTION})?", before="", ends=r"[\r\n/]*"),)
_DEEPSEEK3 = (
    _SHORT,
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}",
)
# To llama.cpp all white space outside ASCII is a vertical tab here: it is in no range of other characters.
_HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff&&\\S]+"
_DEEPSEEK_LETTERS = (  # those with upper and lower case, as of the Unicode that DeepSeek's tokenizer was made with
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_DEEPSEEK_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001\u3002]+",
    r"\s+\z",
    _HAN,
    r"\p{N}+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, _DIGIT)
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_DEFAULT = (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9]{3}")
_FALCON = (r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9]{3}")
_SEED_CODER = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|{_SPACES}",
)

_BY_NAMES: Mapping[str, PreTokenizer] = {
    "default": PreTokenizer(_DEFAULT),
    "gpt-2 phi-2 mpt olmo jais gigachat a.x-4.0 mellum exaone4 trillion granite-docling": PreTokenizer((_GPT2,)),
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": PreTokenizer(_SMOLLM),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2": PreTokenizer(
        _LLAMA3, ignore_merges=True, adds_bos=True
    ),
    "dbrx smaug-bpe": PreTokenizer(_LLAMA3),
    "minicpm5": PreTokenizer((_SHORT, _words(r"\p{N}+")), ignore_merges=True),
    "qwen2 deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2": PreTokenizer(_QWEN2),
    "qwen35": PreTokenizer((_words(_DIGIT, letters=r"[\p{L}\p{M}]+", marks=r"\p{M}"),)),
    "tekken": PreTokenizer(
        (_words(_DIGIT, letters=_CASED, before="", ends=r"[\r\n/]*"),), ignore_merges=True, adds_bos=True
    ),
    "gpt-4o llama4 kanana2 talkie minimax-m2": PreTokenizer(_GPT4O),
    "deepseek-llm": PreTokenizer(_DEEPSEEK_LLM),
    "deepseek-coder": PreTokenizer(_DEEPSEEK_CODER),
    "deepseek-v3 hunyuan-dense joyai-llm": PreTokenizer(_DEEPSEEK3),
    "falcon": PreTokenizer(_FALCON),
    "seed-coder": PreTokenizer(_SEED_CODER),
    "bloom poro-chat gpt3-finnish": PreTokenizer((_BLOOM,)),
    "viking": PreTokenizer((_BLOOM, _DIGIT)),
}

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    name: pre_tokenizer for names, pre_tokenizer in _BY_NAMES.items() for name in names.split()
}
"""The pre-tokenizers by their names in GGUF files: those of the families that the engine runs, and others with the same
expressions."""
