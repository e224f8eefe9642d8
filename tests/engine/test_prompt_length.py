"""A prompt that is far too long is refused before all of it is tokenised; one that fits never is."""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import Any

import pytest
from tokenizers import Tokenizer as FastTokenizer

from engine.api import ContextLengthError, Conversation, GenerationRequest, Message, Prompt
from engine.tokenizer import MAX_BYTES_PER_TOKEN, PIECE_CHARACTERS, PromptTooLongError, Tokenizer
from tests.engine.conftest import MakeEngine
from tests.engine.models import TEXTS, make_tokenizer
from tests.engine.tokenizers import sentencepiece

MEGABYTE = 2**20
LONG = {
    "words": (TEXTS[0] * 20_000)[:MEGABYTE],
    "spaces": " " * MEGABYTE,
    "one word": "a" * MEGABYTE,
    "emoji": "🙂" * (MEGABYTE // 4),
    "special tokens": "<|end|>" * (MEGABYTE // 7),
}


@cache
def subject(name: str) -> Tokenizer:
    hub = {"bytes": make_tokenizer, "sentencepiece": sentencepiece}[name]()
    return Tokenizer(hub, frozenset())


def prompts(text: str) -> list[Prompt]:
    return [text, Conversation((Message("user", text),))]


class Encoded:
    """Counts the characters that a tokenizer is given."""

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        self.characters = 0

    def encode(self, text: str, **settings: Any) -> Any:
        self.characters += len(text)
        return self._fast.encode(text, **settings)

    def encode_batch_fast(self, texts: list[str], **settings: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self._fast.encode_batch_fast(texts, **settings)


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("name", ["bytes", "sentencepiece"])
def test_of_a_megabyte_only_the_beginning_is_tokenised(name: str, text: str) -> None:
    tokenizer = Tokenizer({"bytes": make_tokenizer, "sentencepiece": sentencepiece}[name](), frozenset())
    counted = [Encoded(tokenizer._fast), Encoded(tokenizer._literal)]
    tokenizer._fast, tokenizer._literal = counted  # type: ignore[assignment]

    for prompt in prompts(text):
        with pytest.raises(PromptTooLongError) as refusal:
            tokenizer.encode(prompt, most=1024)
        assert refusal.value.tokens > 1024

    assert max(each.characters for each in counted) <= 4 * PIECE_CHARACTERS


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("name", ["bytes", "sentencepiece"])
@pytest.mark.parametrize("length", [1000, PIECE_CHARACTERS, 3 * PIECE_CHARACTERS + 1])
def test_what_fits_is_encoded_as_without_a_bound(name: str, text: str, length: int) -> None:
    for prompt in prompts(text[:length]):
        tokens = subject(name).encode(prompt)

        assert subject(name).encode(prompt, most=len(tokens)) == tokens
        assert subject(name).encode(prompt, most=MAX_BYTES_PER_TOKEN * len(text)) == tokens


def test_tokens_that_are_long_do_not_count_as_many() -> None:
    text = "again and " * 10_000
    tokens = subject("bytes").encode(text)
    assert len(text) > MAX_BYTES_PER_TOKEN * len(tokens) * 0.9

    assert subject("bytes").encode(text, most=len(tokens)) == tokens


@pytest.mark.parametrize("place", [0, 1])
def test_the_refusal_names_the_field_and_the_limit(make_engine: MakeEngine, place: int) -> None:
    with pytest.raises(
        ContextLengthError, match=r"maximum context length is 256 tokens.*at least \d+ tokens"
    ) as refusal:
        make_engine().prepare(GenerationRequest("a", prompts(LONG["words"])[place]))
    assert refusal.value.param == ("prompt", "messages")[place]
    assert refusal.value.code == "context_length_exceeded"


def test_others_run_while_a_long_prompt_is_tokenised() -> None:
    ticks, done = 0, threading.Event()

    def work() -> None:
        subject("bytes").encode(LONG["words"])
        done.set()

    thread = threading.Thread(target=work)
    began = time.perf_counter()
    thread.start()
    while not done.wait(0.001):
        ticks += 1
    elapsed = time.perf_counter() - began
    thread.join()

    assert ticks > min(10, elapsed / 0.02)  # with the lock held there are one or two
