"""Metadata of a tokenizer that is damaged or not supported is refused with the name of the key."""

from __future__ import annotations

import re
from typing import Any

import pytest

from engine.gguf.errors import GGUFError
from engine.gguf.tokenizer import tokenizer_of
from engine.model.spec import UnsupportedModelError
from tests.engine.gguf_vocabularies import TEMPLATE, byte_level, pieces, without

DAMAGED: list[tuple[str, Any]] = [
    ("tokenizer.ggml.model", None),
    ("tokenizer.ggml.model", 3),
    ("tokenizer.ggml.tokens", None),
    ("tokenizer.ggml.tokens", []),
    ("tokenizer.ggml.tokens", "abc"),
    ("tokenizer.ggml.tokens", ["a", 1]),
    ("tokenizer.ggml.tokens", ["a", "b", "a"]),
    ("tokenizer.ggml.token_type", [1]),
    ("tokenizer.ggml.token_type", [7] * 1_000),
    ("tokenizer.ggml.token_type", ["1"] * 1_000),
    ("tokenizer.ggml.bos_token_id", 1_000),
    ("tokenizer.ggml.eos_token_id", -1),
    ("tokenizer.ggml.eot_token_id", True),
    ("tokenizer.ggml.eom_token_id", "1"),
    ("tokenizer.ggml.unknown_token_id", 0.5),
    ("tokenizer.ggml.padding_token_id", "0"),
    ("tokenizer.ggml.bos_token_id", (1 << 32) - 1),
    ("tokenizer.ggml.add_bos_token", 1),
    ("tokenizer.ggml.add_eos_token", "yes"),
    ("tokenizer.chat_template", 1),
    ("tokenizer.chat_templates", "tool_use"),
    ("tokenizer.chat_template.tool_use", 1),
]


@pytest.mark.parametrize(("key", "value"), DAMAGED)
@pytest.mark.parametrize("make", [byte_level, pieces])
def test_a_damaged_key_is_named(make: Any, key: str, value: Any) -> None:
    named = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": TEMPLATE}

    with pytest.raises(GGUFError, match=re.escape(key)):
        tokenizer_of(without(make() | named | {key: value}))


@pytest.mark.parametrize("name", ["padding", "unknown"])
@pytest.mark.parametrize("value", [1_000, (1 << 32) - 1, -1])
@pytest.mark.parametrize("make", [byte_level, pieces])
def test_padding_and_unknown_outside_the_vocabulary_are_as_if_they_were_not_there(
    make: Any, value: int, name: str
) -> None:
    found = tokenizer_of(make() | {f"tokenizer.ggml.{name}_token_id": value})

    expected = tokenizer_of(make())
    assert found.special_tokens_map == expected.special_tokens_map
    assert found.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()


@pytest.mark.parametrize("make", [byte_level, pieces])
def test_a_token_of_a_megabyte_is_refused_before_it_is_cut(make: Any) -> None:
    others = make()["tokenizer.ggml.tokens"][:-1]
    tokenizer_of(make(tokenizer__ggml__tokens=[*others, "x" * 1024]))

    with pytest.raises(GGUFError, match=r"tokens has a token of 1048576 characters; at most 1024 are read"):
        tokenizer_of(make(tokenizer__ggml__tokens=[*others, "x" * (1 << 20)]))


def test_strings_in_place_of_numbers_take_no_memory_of_their_own() -> None:
    """NumPy would give each of them as much room as the longest, here 16 TiB in all."""
    damaged = pieces(tokenizer__ggml__scores=["1" * (1 << 22)] + ["1"] * (1 << 20))

    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\.scores holds something else than numbers"):
        tokenizer_of(damaged)


@pytest.mark.parametrize("value", [None, ["ab"], ["a zz"], ["a 漢"], [1], "a b"])
def test_merges_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\.merges"):
        tokenizer_of(byte_level(tokenizer__ggml__merges=value))


@pytest.mark.parametrize("value", [None, [1.0], ["1"] * 1_000, [float("nan")] * 1_000, 1.0])
def test_scores_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\.scores"):
        tokenizer_of(pieces(tokenizer__ggml__scores=value))


@pytest.mark.parametrize("name", ["bos", "eos"])
def test_a_token_around_every_text_must_be_named(name: str) -> None:
    keys = {f"tokenizer__ggml__add_{name}_token": True, f"tokenizer__ggml__{name}_token_id": None}

    with pytest.raises(GGUFError, match=f"{name}_token_id is missing"):
        tokenizer_of(byte_level(**keys))


@pytest.mark.parametrize("kind", ["t5", "bert", "rwkv", "none", "gpt3"])
def test_another_kind_of_tokenizer_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"tokenizer.ggml.model is '{kind}'.*supported: gpt2, llama"):
        tokenizer_of(byte_level(tokenizer__ggml__model=kind))


def test_a_pre_tokenizer_has_a_name() -> None:
    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\.pre is 3, no string"):
        tokenizer_of(byte_level(tokenizer__ggml__pre=3))


def test_an_unknown_pre_tokenizer_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.ggml\.pre 'gpt-9'.*llama-bpe.*smollm"):
        tokenizer_of(byte_level(tokenizer__ggml__pre="gpt-9"))
