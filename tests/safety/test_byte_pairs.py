"""The tokens of SmolLM2 are those of the engine's tokenizer for the same file."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest

from engine.gguf.file import GGUFFile as EngineFile
from engine.gguf.tokenizer import tokenizer_of
from safety.decoder.architecture import UnsupportedDecoderError
from safety.decoder.byte_pairs import BytePairs
from safety.decoder.gguf_file import GGUFFile
from safety.decoder.metadata import Metadata
from tests.safety.smollm2 import packaged_file

TEXTS = 2000
ROOT = Path(__file__).parents[2]
SPACES = " \t\n\r\u00a0\u3000\u200b\x00"
MARKS = "'s'LL.,!?_(/=|<>$🙂\u0301\u200d٣½"


@pytest.fixture(scope="module")
def pairs() -> BytePairs:
    return BytePairs(GGUFFile(packaged_file()).metadata)


def varied_texts() -> list[str]:
    """Passages of English, of code and of JSON; characters of all scripts; runs of digits, marks and white space."""
    rng = random.Random(0)
    sources = ["README.md", "tests/safety/attacks.jsonl", "safety/encoder/graph.py", "docs/benchmarks.md"]
    passages = [(ROOT / name).read_text("utf-8") for name in sources]
    letters = [chr(code) for code in range(0x20, 0x2FFFF) if unicodedata.category(chr(code))[0] in "LMNPSZ"]
    texts = [""]
    while len(texts) < TEXTS:
        passage = rng.choice(passages)
        start = rng.randrange(len(passage))
        texts.append(passage[start : start + rng.randrange(1, 400)])
        texts.append("".join(rng.choices(letters, k=rng.randrange(1, 60))))
        texts.append("".join(rng.choices(f"0123456789abcXYZ{MARKS}{SPACES}", k=rng.randrange(1, 80))))
    return texts[:TEXTS]


def test_tokens_are_those_of_the_engine(pairs: BytePairs) -> None:
    engine = tokenizer_of(EngineFile.open(packaged_file()).metadata).backend_tokenizer
    texts = [text for text in varied_texts() if not any(name in text for name in pairs.control)]
    assert len(texts) > TEXTS * 0.99
    for text in texts:
        assert pairs(text) == engine.encode(text, add_special_tokens=False).ids, repr(text)


def test_control_tokens_in_a_text_are_text(pairs: BytePairs) -> None:
    assert pairs.control["<|im_end|>"] == 2
    for name in pairs.control:
        assert not {*pairs(f"a {name}\n{name}b")} & {*pairs.control.values()}


VOCABULARY = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "Ġ"],
    "tokenizer.ggml.token_type": [1, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b"],
}


def test_bytes_without_a_token_are_left_out() -> None:
    assert BytePairs(Metadata(VOCABULARY))("ab c a\xe9b") == [2, 3, 3, 0, 1]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "llama", "must be gpt2, not llama"),
        ("tokenizer.ggml.pre", "qwen2", "must be smollm, not qwen2"),
        ("tokenizer.ggml.merges", ["a b", "b nosuchtoken"], "'b nosuchtoken'"),
        ("tokenizer.ggml.merges", ["ab"], "'ab'"),
        ("tokenizer.ggml.tokens", None, "must be of type list"),
        ("tokenizer.ggml.token_type", [1], "1 values for 4 tokens"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(UnsupportedDecoderError, match=message):
        BytePairs(Metadata(VOCABULARY | {key: value}))
