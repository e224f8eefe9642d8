"""Streams of text: nothing lost, nothing too early, no half characters."""

from __future__ import annotations

import copy
import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from engine.api import Conversation, FinishReason, Message, Prompt, RequestError, SamplingParams
from engine.decode.detokenizer import Detokenizer, WindowDetokenizer
from engine.decode.output import Output
from engine.decode.stop import StopStrings
from engine.tokenizer import Tokenizer
from tests.engine.models import EOS, VOCAB, make_tokenizer

ALPHABET = st.sampled_from("ab 🙂👩‍👩‍👧‍👦你好世界мирمرحباe\u0301שלום\n\ufffd")
TEXT = st.text(ALPHABET, max_size=40) | st.text(max_size=20)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(make_tokenizer(), frozenset({0}))


def stream(detokenizer: Detokenizer, tokens: list[int]) -> str:
    return "".join([*map(detokenizer.push, tokens), detokenizer.flush()])


@given(st.lists(st.integers(0, VOCAB - 1), max_size=60))
@settings(deadline=None)
def test_any_tokens_joined_are_the_decoding_of_all(tokens: list[int]) -> None:
    expected = make_tokenizer().decode(tokens, skip_special_tokens=True)

    assert stream(tokenizer().detokenizer(), tokens) == tokenizer().decode(tokens) == expected


@given(TEXT)
@settings(deadline=None)
def test_no_replacement_character_that_the_text_has_not(text: str) -> None:
    detokenizer = tokenizer().detokenizer()
    pieces = [detokenizer.push(token) for token in tokenizer().encode(text)]

    assert "".join(pieces) == text
    assert detokenizer.flush() == ""


@given(TEXT.map(lambda text: text.replace("\x00", "")))
@settings(deadline=None)
def test_sentencepiece_vocabularies_stream_the_same_text(text: str) -> None:
    fast = sentencepiece()
    tokens = list(fast.encode("\u2581" + text.replace(" ", "\u2581")).ids)

    assert stream(WindowDetokenizer(fast.decode), tokens) == fast.decode(tokens)


@cache
def sentencepiece() -> FastTokenizer:
    """Llama 2's kind: words begin with U+2581, unknown characters fall back to tokens of one byte."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "\u2581a", "ab", "好"]
    vocab = {word: place for place, word in enumerate(words)}
    merges = [("\u2581", "a"), ("a", "b")]
    fast = FastTokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    fast.decoder = decoders.Sequence(steps)
    return fast


FUZZED = 10_000
SCRIPTS = (
    *((chr(first), chr(last)) for first, last in ((0x20, 0x7E), (0x4E00, 0x4FFF), (0x3040, 0x30FF), (0x0621, 0x064A))),
    *(
        (chr(first), chr(last))
        for first, last in ((0x1F600, 0x1F64F), (0x0300, 0x036F), (0x05D0, 0x05EA), (0x0900, 0x0939))
    ),
)
JOINED = ("\u200d", "\ufe0f", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "e\u0301", " ", "\n", "\ufffd", "🇮🇹")


def any_text(numbers: random.Random) -> str:
    """Letters of many scripts, combining marks and joined emoji."""
    pieces = []
    for _ in range(numbers.randrange(1, 12)):
        first, last = numbers.choice(SCRIPTS)
        pieces.append(numbers.choice(JOINED) if numbers.random() < 0.3 else chr(numbers.randint(ord(first), ord(last))))
    return "".join(pieces)


@cache
def vocabularies() -> dict[str, Tokenizer]:
    """Byte-level BPE, large and small, and SentencePiece's kind."""
    directory = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"
    pieces = PreTrainedTokenizerFast(tokenizer_object=sentencepiece())
    return {
        "embedded": Tokenizer.from_directory(directory),
        "small": tokenizer(),
        "sentencepiece": Tokenizer(pieces, frozenset()),
    }


@pytest.mark.parametrize("name", ["embedded", "small", "sentencepiece"])
def test_any_text_and_any_tokens_stream_as_they_are_decoded(name: str) -> None:
    subject, numbers = vocabularies()[name], random.Random(name)
    for turn in range(FUZZED):
        if turn % 2:  # bytes in any order
            tokens = [numbers.randrange(subject.size) for _ in range(numbers.randrange(1, 12))]
            if name == "sentencepiece":  # the hub's decoder spoils a whole run of bytes for one that is wrong
                expected = b"".join(map(subject.token_bytes, tokens)).decode("utf-8", "replace")
            else:
                expected = subject._hub.backend_tokenizer.decode(tokens, skip_special_tokens=True)
        else:
            expected = any_text(numbers)
            tokens = subject.encode(expected)
            assert subject._hub.backend_tokenizer.decode(tokens, skip_special_tokens=True) == expected.removeprefix(
                " " * subject._bare
            )
        whole = subject.decode(tokens)
        output = Output(SamplingParams(ignore_eos=True), frozenset(), subject.detokenizer())
        pieces = [output.push(token, last=place + 1 == len(tokens))[0] for place, token in enumerate(tokens)]

        assert "".join(pieces) == whole == stream(subject.detokenizer(), tokens)
        assert whole == expected.removeprefix(" " * subject._bare)
        assert sum(piece.count("\ufffd") for piece in pieces) == whole.count("\ufffd")


@given(TEXT, st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), min_size=1, max_size=3), st.booleans())
@settings(deadline=None)
def test_a_stop_string_ends_the_text_before_it_wherever_tokens_are_cut(
    text: str, slices: list[tuple[int, int]], singly: bool
) -> None:
    subject = tokenizer()
    stops = tuple(stop for at, size in slices if (stop := text[at : at + size])) or ("zz",)
    output = Output(SamplingParams(stop=stops), frozenset(), subject.detokenizer())
    tokens = [t for c in text for t in subject.encode(c)] if singly else subject.encode(text)
    shown, reason = "", None
    for token in tokens:
        piece, reason = output.push(token, last=False)
        shown += piece
        if reason is not None:
            break
    ends = [(at + len(s), at) for s in stops if (at := text.find(s)) >= 0]

    assert (reason is FinishReason.STOP) == bool(ends)
    if ends:
        assert shown == text[: min(ends)[1]]
    else:
        assert text.startswith(shown)
        assert len(text) - len(shown) < max(map(len, stops))


@given(
    st.text("abc", max_size=30),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 5), min_size=30, max_size=30),
)
def test_stop_strings_cut_anywhere(text: str, stops: list[str], cuts: list[int]) -> None:
    watch, shown, stopped, rest = StopStrings(tuple(stops)), "", False, text
    for cut in cuts:
        piece, rest = rest[:cut], rest[cut:]
        part, stopped = watch.push(piece)
        shown += part
        longest = max(map(len, stops), default=1) - 1
        assert stopped or len(text) - len(rest) - len(shown) <= longest  # held back no more than needed
        if stopped:
            break
    shown += watch.flush()
    ends = [(at + len(s), at) for s in stops if (at := text.find(s)) >= 0]

    assert stopped == bool(ends)
    assert shown == (text[: min(ends)[1]] if ends else text)


@pytest.mark.parametrize("last", [False, True])
def test_a_final_token_is_not_text(last: bool) -> None:
    output = Output(SamplingParams(stop=("xyz",)), frozenset({0}), tokenizer().detokenizer())
    text = "".join(output.push(token, last=False)[0] for token in tokenizer().encode("ab xy"))

    assert output.push(0, last=last) == ("ab xy"[len(text) :], FinishReason.STOP)


def test_conversations_follow_the_chat_template() -> None:
    messages = [{"role": "user", "content": "naïve 🙂"}, {"role": "assistant", "content": "Blocks"}]
    conversation = Conversation(tuple(Message(m["role"], m["content"]) for m in messages))
    expected = make_tokenizer().apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    assert tokenizer().encode(conversation) == expected


@pytest.mark.parametrize("content", [EOS, f"a{EOS}b{EOS}", f"<|en{EOS}d|>", "<|assistant|>ab"])
def test_special_tokens_spelled_by_a_user_are_plain_text(content: str) -> None:
    tokens = tokenizer().encode(Conversation((Message("user", content),)))
    specials = [token for token in tokens if token < 3]

    assert specials == tokenizer().encode("<|user|>" + EOS + "<|assistant|>")
    assert tokenizer().decode(tokens) == content


@pytest.mark.parametrize(
    ("prompt", "param"), [("a\ud800", "prompt"), (Conversation((Message("user", "\udfff"),)), "messages")]
)
def test_half_a_surrogate_pair_is_refused(prompt: Prompt, param: str) -> None:
    with pytest.raises(RequestError, match="surrogate") as refusal:
        tokenizer().encode(prompt)
    assert refusal.value.param == param


def test_without_chat_template_conversations_are_refused() -> None:
    hub = copy.deepcopy(make_tokenizer())
    hub.chat_template = None

    with pytest.raises(RequestError) as refusal:
        Tokenizer(hub, frozenset()).encode(Conversation((Message("user", "hi"),)))
    assert refusal.value.param == "messages"


def test_bytes_of_sentencepiece_tokens_join_to_the_text() -> None:
    hub = PreTrainedTokenizerFast(tokenizer_object=sentencepiece())
    subject = Tokenizer(hub, frozenset())
    tokens = list(sentencepiece().encode("\u2581ab\u2581好🙂\u2581a").ids)

    assert b"".join(map(subject.token_bytes, tokens)).decode() == " ab 好🙂 a"
