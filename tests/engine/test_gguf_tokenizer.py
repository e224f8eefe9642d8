"""Tokenizers from the keys of GGUF files, beside the tokenizers whose keys they are."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from engine.api import Conversation, Grammar, Message
from engine.chat_template import ChatTemplate
from engine.decode.detokenizer import byte_alphabet
from engine.gguf.pre_tokenizers import PRE_TOKENIZERS
from engine.gguf.tokenizer import eos_token_ids, tokenizer_of
from engine.tokenizer import Tokenizer
from tests.engine.gguf_vocabularies import TEMPLATE, WORDS, byte_level, pieces, trained

TEXT = st.text(st.sampled_from("aAbst'sreVLm éǅßΩд漢が٣12½ \t\n\r\u00a0\u3000.,!?_(/=|<>$🙂\u0301\u200d"), max_size=40)
# As the tokenizer.json of Llama 3 and Qwen 2 have them; there (?i:) ignores the case of 's.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def cut_by(expression: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
ORIGINALS: dict[str, pre_tokenizers.PreTokenizer] = {
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "llama-bpe": cut_by(LLAMA3),
    "qwen2": cut_by(QWEN2),
}


def ids(metadata: dict[str, Any], text: str, framed: bool = False) -> list[int]:
    return list(tokenizer_of(metadata).backend_tokenizer.encode(text, add_special_tokens=framed).ids)


def tokens(metadata: dict[str, Any], text: str, framed: bool = False) -> list[str]:
    return [metadata["tokenizer.ggml.tokens"][token] for token in ids(metadata, text, framed)]


@cache
def ready(name: str) -> FastTokenizer:
    """The tokenizer of these keys with one or another pre-tokenizer."""
    return tokenizer_of(byte_level(tokenizer__ggml__pre=name)).backend_tokenizer


@cache
def original(name: str) -> FastTokenizer:
    fast = FastTokenizer.from_str(trained().to_str())
    fast.pre_tokenizer = ORIGINALS[name]
    return fast


@pytest.mark.parametrize("name", ORIGINALS)
@given(text=TEXT)
@settings(deadline=None)
def test_tokens_are_those_of_the_original(name: str, text: str) -> None:
    assert ready(name).encode(text, add_special_tokens=False).ids == original(name).encode(text).ids


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@given(text=TEXT | st.text(max_size=20))
@settings(deadline=None, max_examples=20)
def test_no_pre_tokenizer_loses_a_character(name: str, text: str) -> None:
    assert ready(name).decode(ready(name).encode(text).ids) == text


def sentencepieces(metadata: dict[str, Any], text: str) -> list[int]:
    """Kudo and Richardson's BPE, slow and plain: of all neighbours that make up a piece, those with the best score are
    joined, the leftmost of the same; then bytes stand for what is no piece."""
    by_token = {token: place for place, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    scores = metadata["tokenizer.ggml.scores"]
    found = []
    for stretch in filter(None, re.split("(<unk>|<s>|</s>|<think>)", text)):
        if stretch in ("<unk>", "<s>", "</s>", "<think>"):
            found.append(by_token[stretch])
            continue
        parts = list(f"\u2581{stretch}".replace(" ", "\u2581"))
        while True:
            joint = [(scores[by_token[a + b]], -n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in by_token]
            if not joint:
                break
            place = -max(joint)[1]
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
        for part in parts:
            spelled = [part] if part in by_token else [f"<0x{byte:02X}>" for byte in part.encode()]
            found += [by_token[each] for each in spelled]
    return found


@cache
def ready_pieces() -> FastTokenizer:
    return tokenizer_of(pieces()).backend_tokenizer


PIECES = st.sampled_from(["<s>", "</s>", "<unk>", "<think>", " ", "the", "capital", "What is", "🙂", "\u2581", "\n"])


@given(st.lists(PIECES | TEXT | st.text("Whatiscpluofe ", max_size=20), max_size=6).map("".join))
@settings(deadline=None)
def test_pieces_are_merged_by_their_scores(text: str) -> None:
    assert ready_pieces().encode(text, add_special_tokens=False).ids == sentencepieces(pieces(), text)


@given(text=TEXT.filter(lambda text: "<" not in text and "\u2581" not in text))
@settings(deadline=None)
def test_pieces_decode_to_their_text(text: str) -> None:
    assert ready_pieces().decode(ready_pieces().encode(text).ids) == text


def test_pieces_take_the_space_prefix_from_its_key() -> None:
    plain = pieces(tokenizer__ggml__add_space_prefix=False)

    assert tokens(plain, "the  the") == ["t", "he", "\u2581", "\u2581the"]
    assert tokens(pieces(), "the") == ["\u2581the"]
    assert tokenizer_of(plain).backend_tokenizer.decode(ids(plain, " the")) == " the"


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("default", ["It", "'", "s", " ", "123", "4", "!?", "\n"]),
        ("gpt-2", ["It", "'s", " 1234", "!?", "\n"]),
        ("smollm", ["It", "'s", " ", "1", "2", "3", "4", "!?", "\n"]),
        ("llama-bpe", ["It", "'s", " ", "123", "4", "!?\n"]),
        ("qwen2", ["It", "'s", " ", "1", "2", "3", "4", "!?\n"]),
        ("tekken", ["It", "'s", " ", "1", "2", "3", "4", "!?\n"]),
        ("gpt-4o", ["It's", " ", "123", "4", "!?\n"]),
        ("deepseek-llm", ["It", "'", "s", " ", "1234", "!?", "\n"]),
        ("deepseek-coder", ["It", "'", "s", " ", "1", "2", "3", "4", "!?", "\n"]),
        ("deepseek-v3", ["It", "'s", " ", "123", "4", "!?\n"]),
        ("falcon", ["It", "'", "s", " ", "123", "4", "!?", "\n"]),
        ("seed-coder", ["It", "'s", " ", "1", "2", "3", "4", "!?", "\n"]),
        ("bloom", ["It's", " 1234", "!?\n"]),
        # A model's tokenizer.json has other borders here; these are llama.cpp's.
        ("llama-bpe", ["he", "'S", " it", "'ſ"]),
        ("tekken", ["éAb", " É", "A"]),
        ("gpt-4o", ["aé", "X'll"]),
        ("deepseek-llm", ["a", "\u3000\u3000", "漢"]),
        ("qwen35", ["e\u0301", "!\n"]),
        ("qwen2", ["e", "\u0301!\n"]),
    ],
)
def test_borders_are_those_of_llama_cpp(pre: str, expected: list[str]) -> None:
    found = PRE_TOKENIZERS[pre].built().pre_tokenize_str("".join(expected))

    alphabet = byte_alphabet()
    assert [bytes(alphabet[character] for character in piece).decode() for piece, _ in found] == expected


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("tekken", True), ("dbrx", False), ("qwen2", False)])
def test_a_piece_that_is_a_token_needs_no_merges_where_they_are_ignored(pre: str, whole: bool) -> None:
    assert (tokens(byte_level(tokenizer__ggml__pre=pre), "an officially") == ["a", "n", "Ġofficially"]) is whole


def test_what_is_beside_a_byte_without_a_token_does_not_meet() -> None:
    metadata = byte_level()
    known = metadata["tokenizer.ggml.tokens"]
    other = byte_level(tokenizer__ggml__tokens=["[NONE]" if token == "ċ" else token for token in known])

    assert tokens(other, "\n\n") == ["ĊĊ"]
    assert tokens(metadata, "\n\x0b\n") == ["Ċ", "ċ", "Ċ"]
    assert tokens(other, "\n\x0b\n") == ["Ċ", "Ċ"]
    assert tokens(other, "\x0b") == []


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (byte_level(), ["a"]),
        (byte_level(tokenizer__ggml__pre="llama-bpe"), ["<|begin|>", "a"]),
        (byte_level(tokenizer__ggml__pre="llama-bpe", tokenizer__ggml__add_bos_token=False), ["a"]),
        (byte_level(tokenizer__ggml__add_bos_token=True), ["<|begin|>", "a"]),
        (byte_level(tokenizer__ggml__add_eos_token=True), ["a", "<|im_end|>"]),
        (pieces(), ["<s>", "\u2581a"]),
        (pieces(tokenizer__ggml__add_bos_token=False), ["\u2581a"]),
        (pieces(tokenizer__ggml__add_eos_token=True), ["<s>", "\u2581a", "</s>"]),
    ],
)
def test_a_text_is_framed_as_the_keys_say(metadata: dict[str, Any], expected: list[str]) -> None:
    assert tokens(metadata, "a", framed=True) == expected
    assert tokens(metadata, "", framed=True) == [token for token in expected if token.startswith("<")]


def test_control_and_user_defined_tokens_are_no_text_to_merge() -> None:
    metadata = byte_level()
    hub = tokenizer_of(metadata)

    assert tokens(metadata, "a<|im_end|>a<think>a") == ["a", "<|im_end|>", "a", "<think>", "a"]
    assert "[PAD1]" not in tokens(metadata, "a[PAD1]")
    assert hub.backend_tokenizer.decode(ids(metadata, "a<|im_end|><think>"), skip_special_tokens=True) == "a<think>"
    assert hub.special_tokens_map == {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}


@pytest.mark.parametrize("kind", [1, 4])
def test_a_token_with_a_known_name_is_a_control_token_whatever_its_type(kind: int) -> None:
    types = byte_level()["tokenizer.ggml.token_type"]
    metadata = byte_level(tokenizer__ggml__token_type=[kind if each == 3 else each for each in types])

    assert tokens(metadata, "a<|im_start|><|im_end|>")[-1] == "<|im_end|>"
    assert (
        tokenizer_of(metadata).backend_tokenizer.decode(ids(metadata, "a<|im_end|>"), skip_special_tokens=True) == "a"
    )


def test_a_token_that_pads_stays_text_unless_it_is_a_control_token() -> None:
    metadata = byte_level(tokenizer__ggml__padding_token_id=0, tokenizer__ggml__unknown_token_id=0)
    hub = tokenizer_of(metadata)

    assert not {"pad_token", "unk_token"} & hub.special_tokens_map.keys()
    assert hub.backend_tokenizer.decode([0], skip_special_tokens=True) == metadata["tokenizer.ggml.tokens"][0]


@pytest.mark.parametrize(
    ("name", "expected"), [("Phi-3 mini", ["a", "</s>", "\u2581a"]), (None, ["a", "</s>", "\u2581\u2581a"])]
)
def test_phi3_takes_no_space_after_special_tokens(name: str | None, expected: list[str]) -> None:
    metadata = pieces(general__name=name)

    assert "".join(tokens(metadata, "a</s> a")) == "\u2581" + "".join(expected)


def test_a_message_cannot_spell_a_control_token() -> None:
    metadata = byte_level()
    control = metadata["tokenizer.ggml.tokens"].index("<|im_end|>")

    found = Tokenizer(tokenizer_of(metadata), frozenset()).encode(Conversation((Message("user", "a<|im_end|>b"),)))

    assert found.count(control) == 1
    assert found[-1] == control


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (byte_level(), {"<|im_end|>"}),
        (byte_level(tokenizer__ggml__eos_token_id=None), {"<|im_end|>"}),
        (byte_level(tokenizer__ggml__eos_token_id=0, tokenizer__ggml__eot_token_id=1), {0, 1}),
        (byte_level(tokenizer__ggml__eos_token_id=0, tokenizer__ggml__eom_token_id=2), {0, 2, "<|im_end|>"}),
        (pieces(), {"</s>"}),
        (pieces(tokenizer__ggml__eos_token_id=5), {5}),
    ],
)
def test_an_answer_ends_with_any_token_that_ends_something(metadata: dict[str, Any], expected: set[int | str]) -> None:
    found = {metadata["tokenizer.ggml.tokens"].index(each) if isinstance(each, str) else each for each in expected}

    assert eos_token_ids(metadata) == found


WITH_TOOLS = 'with tools: <tool_call>{"name": ..., "arguments": ...}'


def test_one_chat_template_of_several_is_taken_by_what_a_conversation_has() -> None:
    named = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": WITH_TOOLS}
    hub = tokenizer_of(byte_level() | named)

    template = ChatTemplate(hub.chat_template, hub.special_tokens_map)
    assert template.render(Conversation((Message("user", "a"),), ("{}",)), str) == WITH_TOOLS
    assert template.render(Conversation((Message("user", "a"),)), str) == (
        ChatTemplate(TEMPLATE, hub.special_tokens_map).render(Conversation((Message("user", "a"),)), str)
    )
    assert tokenizer_of(byte_level()).chat_template == TEMPLATE
    assert tokenizer_of(byte_level(tokenizer__chat_template=None)).chat_template is None


def test_files_without_a_pre_tokenizer_take_the_default() -> None:
    assert ids(byte_level(tokenizer__ggml__pre=None), WORDS[0]) == ids(
        byte_level(tokenizer__ggml__pre="default"), WORDS[0]
    )


def test_a_grammar_is_written_with_the_tokens_of_a_file() -> None:
    tokenizer = Tokenizer(tokenizer_of(byte_level()), eos_token_ids(byte_level()))

    assert tokenizer.grammar_compiler(tokenizer.size).compile(Grammar.choice(["yes", "no"]), 0).failed is False
