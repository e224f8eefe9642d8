"""SentencePiece puts a space before a text, and leaves it out where one begins: an answer begins none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine import Engine, Grammar, SamplingParams
from engine.api import BeamSearch, Conversation, Message
from engine.completion import Completion
from engine.tokenizer import Tokenizer
from tests.engine.tokenizers import metaspace, save_llama, sentencepiece

KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {"sentencepiece": sentencepiece, "metaspace": metaspace}
PROMPT = "What is the"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Engine]]:
    made: dict[str, Engine] = {}

    def engine(kind: str) -> Engine:
        if kind not in made:
            directory = save_llama(KINDS[kind](), tmp_path_factory.mktemp(kind))
            made[kind] = Engine.from_pretrained(directory, kv_cache_tokens=2048)
        return made[kind]

    yield engine
    for each in made.values():
        each.close()


def token(word: str) -> int:
    return sentencepiece().get_vocab()[word]


CAPITAL = token("\u2581capital")


def say(engine: Engine, prompt: Any = PROMPT, **settings: Any) -> Completion:
    words: dict[str, Any] = {
        "temperature": 0,
        "ignore_eos": True,
        "max_tokens": 2,
        "allowed_token_ids": (CAPITAL,),
    }
    return engine.generate([prompt], SamplingParams(**(words | settings)))[0]


def test_the_maker_makes_what_it_says() -> None:
    assert sentencepiece().convert_ids_to_tokens(sentencepiece().encode("is the</s>is")) == [
        *("<s>", "▁is", "▁the", "</s>", "▁is")
    ]
    assert metaspace().convert_ids_to_tokens(metaspace().encode("is the</s>is")) == ["<s>", "▁is", "▁the", "</s>", "is"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [PROMPT, "", (1,), (1, 2), "naïve 🙂", Conversation((Message("user", "What?"),))])
def test_prompt_and_answer_are_the_decoding_of_both(engines: Callable[[str], Engine], kind: str, prompt: Any) -> None:
    subject = Tokenizer(KINDS[kind](), frozenset())
    tokens = subject.encode(prompt)

    answer = say(engines(kind), prompt)

    assert subject.decode(tokens) + answer.text == subject.decode([*tokens, *answer.token_ids])
    assert answer.text == (" " if subject.decode(tokens) else "") + "capital capital"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_that_begins_with_a_space_ends_the_answer(engines: Callable[[str], Engine], kind: str) -> None:
    answer = say(engines(kind), stop=(" capital",))

    assert (answer.text, answer.finish_reason) == ("", "stop")


@pytest.mark.parametrize(
    ("prompt", "grammar", "expected"),
    [
        (PROMPT, Grammar.choice([" yes", " no"]), (" yes", " no")),
        (PROMPT, Grammar.regex(" [ab]"), (" a", " b")),
        (PROMPT, Grammar.choice(["yes", "no"]), ("yes", "no")),
        ((1,), Grammar.choice([" yes", " no"]), (" yes", " no")),
    ],
)
def test_the_text_is_what_its_grammar_describes(
    engines: Callable[[str], Engine], prompt: Any, grammar: Grammar, expected: tuple[str, ...]
) -> None:
    assert (
        say(engines("sentencepiece"), prompt, grammar=grammar, allowed_token_ids=None, max_tokens=20).text in expected
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [PROMPT, "", "naïve"])
@pytest.mark.parametrize("beam", [None, BeamSearch(width=2)])
def test_what_scored_tokens_add_is_the_text(
    engines: Callable[[str], Engine], kind: str, prompt: str, beam: BeamSearch | None
) -> None:
    subject = Tokenizer(KINDS[kind](), frozenset())
    words = (CAPITAL, token("\u2581the"), 1)  # the last has no text

    answer = say(engines(kind), prompt, logprobs=0, prompt_logprobs=0, allowed_token_ids=words, max_tokens=6, beam=beam)

    assert answer.logprobs is not None
    assert answer.prompt_logprobs is not None
    assert b"".join(one.text_bytes for one in answer.logprobs).decode() == answer.text
    assert b"".join(one.text_bytes for one in answer.prompt_logprobs).decode() == subject.decode(subject.encode(prompt))
    assert answer.prompt_logprobs[0].chosen.text == "<s>"
    assert answer.prompt_logprobs[0].text_bytes == b""


def test_each_choice_keeps_its_space(engines: Callable[[str], Engine]) -> None:
    words = SamplingParams(n=3, max_tokens=2, allowed_token_ids=(CAPITAL,), ignore_eos=True)

    assert [one.text for one in engines("sentencepiece").generate([PROMPT], words)] == [" capital capital"] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["a</s>b", "</s>", "<s> a </s>", "a</s></s>b<s>", "</", "a<"])
def test_a_spelled_special_token_is_text_like_any_other(kind: str, content: str) -> None:
    hub = KINDS[kind]()
    literal = hub.backend_tokenizer.from_str(hub.backend_tokenizer.to_str())
    literal.encode_special_tokens = True
    expected = literal.encode(f"[INST] {content} [/INST]", add_special_tokens=False).ids

    assert Tokenizer(hub, frozenset()).encode(Conversation((Message("user", content),))) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_of_the_template_keep_their_place(kind: str) -> None:
    hub = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind]().backend_tokenizer, bos_token="<s>", eos_token="</s>")
    hub.chat_template = "<s>{% for m in messages %}[INST] {{ m.content }} [/INST]is</s>is the {% endfor %}"
    rendered = "<s>[INST] What a [/INST]is</s>is the [INST] no [/INST]is</s>is the "

    tokens = Tokenizer(hub, frozenset()).encode(Conversation((Message("user", "What a"), Message("user", "no"))))

    assert tokens == hub.backend_tokenizer.encode(rendered, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
def test_two_messages_cannot_spell_a_special_token_together(kind: str) -> None:
    hub = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind]().backend_tokenizer, bos_token="<s>", eos_token="</s>")
    hub.chat_template = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"

    tokens = Tokenizer(hub, frozenset()).encode(Conversation((Message("user", "is</ "), Message("user", "s>is"))))

    assert not {1, 2} & set(tokens)
    assert hub.decode(tokens) == "is</s>is"


def test_a_vocabulary_that_holds_special_tokens_as_pieces_does_not_make_them_of_text() -> None:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("\u2581", -2.0), *((each, -3.0) for each in "<>/sabis")]
    fast = FastTokenizer(models.Unigram(list(dict.fromkeys(pieces)), unk_id=0))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    hub = PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    hub.chat_template = "<s>{% for m in messages %}{{ m.content }}{% endfor %}</s>"

    tokens = Tokenizer(hub, frozenset()).encode(Conversation((Message("user", "a</s>b"),)))

    assert hub.convert_ids_to_tokens(tokens) == ["<s>", "a", "<", "/", "s", ">", "b", "</s>"]
